"""Small shard sets of songs with HeartCodec tokens, as `audioprep tokenize` lays them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from latent_sets import Item, write_set
from numpy.typing import NDArray

from audioprep.encoders.base import EncoderSpec
from audioprep.shards.columns import array_type
from audioprep.shards.writers import Format

SPEC = EncoderSpec(
    "heartcodec", "tokens", 24000, 2, 1920, window=714240, left_context=0, right_context=0, batch_size=2,
    fingerprint="f" * 64, num_codebooks=8, codebook_size=8192,
)  # fmt: skip
_TEXTS = ("id", "uri", "split", "tags", "lyrics", "license", "source")


def tokens_of(number: int, frames: int) -> NDArray[np.uint16]:
    """Random codes; the first codebook of each frame is the frame's number, the second that of the song."""
    tokens = np.random.default_rng(number).integers(0, 8192, (frames, 8), np.uint16)
    tokens[:, 0], tokens[:, 1] = np.arange(frames) % 8192, number
    return tokens


def make_song(number: int, frames: int, **changes: Any) -> Item:
    """A song of so many frames, with lyrics."""
    song = {
        "id": hashlib.sha256(b"%d" % number).hexdigest()[:32],
        "uri": f"/music/{number % 2:02d}/{number}.mp3",
        "duration": (frames - 0.5) / 12.5,
        "split": "train",
        "tags": f"piano,happy,tag{number}",
        "lyrics": f"[Verse]\nLine {number}\nLa la",
        "license": "CC BY 4.0" if number % 2 else None,
        "source": None,
        "num_frames": frames,
        "audio_tokens": tokens_of(number, frames),
    }
    return song | changes


def write_song_set(
    root: Path,
    shards: Sequence[Sequence[Item]],
    *,
    storage: Format = "parquet",
    spec: EncoderSpec | None = SPEC,
    width: int = 8,
) -> Path:
    """One file a shard."""
    encoders = {"audio_tokens": spec.to_dict() | {"encoder": spec.name, "encoder_settings": {}}} if spec else {}
    return write_set(root, shards, _TEXTS, {"audio_tokens": array_type(pa.uint16(), width)}, encoders, storage)
