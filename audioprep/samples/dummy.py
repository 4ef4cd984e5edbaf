"""A synthetic data set in the layout of the SongBloom fork: tones, lyrics, prompts and random sketch tokens.

It is for dry runs of a trainer where there is no music: nothing can be learnt from it. Songs are in `audio/`, with
their lyrics beside them, so that every other command can read them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioprep.errors import UsageError
from audioprep.export.songbloom_files import PROMPT_RATE, SketchFormat, sketch_bytes, wav_bytes
from audioprep.shards.split import split_of

LYRICS = "[intro] , [verse] さくら. はなさくら , [chorus] らららら. さくら , [outro]"
_SCALE = 220.0 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)  # Hz: a pentatonic scale, as such songs have


def make_dummy(
    out: Path,
    samples: int,
    seconds: float,
    prompt_seconds: float,
    sketch_rate: float,
    codes: int,
    splits: Mapping[str, float],
    seed: int,
    sketch_format: SketchFormat = "npy",
) -> dict[str, int]:
    """Writes the data set; the same arguments give the same bytes.

    Args:
        out: a new or an empty folder.
        samples: songs.
        seconds: of a song.
        prompt_seconds: of a prompt, cut from the song's beginning.
        sketch_rate: sketch tokens a second.
        codes: tokens are 0 … codes - 1.
        splits: the share of each; `SPLIT.jsonl` lists its songs.
        seed: of everything random.
        sketch_format: of the token files.

    Returns:
        Songs of each split.

    Raises:
        UsageError: the folder has something in it.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty; choose a new folder")
    for name in ("audio", "prompts", "sketch"):
        (out / name).mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {split: [] for split in splits}
    for number in range(samples):
        idx = f"dummy_{number:04d}"
        random = np.random.default_rng([seed, number])
        song = _tones(random, round(seconds * PROMPT_RATE))
        tokens = random.integers(0, codes, max(1, round(seconds * sketch_rate)))
        paths = {
            "audio_path": out / "audio" / f"{idx}.wav",
            "prompt_wav": out / "prompts" / f"{idx}.wav",
            "sketch_path": out / "sketch" / f"{idx}.{sketch_format}",
        }
        paths["audio_path"].write_bytes(wav_bytes(song))
        paths["audio_path"].with_suffix(".lyrics").write_text(LYRICS + "\n", encoding="utf-8")
        paths["prompt_wav"].write_bytes(wav_bytes(song[:, : round(prompt_seconds * PROMPT_RATE)]))
        paths["sketch_path"].write_bytes(sketch_bytes(tokens, sketch_format))
        named = {name: str(path.absolute()) for name, path in paths.items()}
        row = {"idx": idx, "lyrics": LYRICS} | named
        rows[split_of(idx, splits, seed)].append(json.dumps(row, ensure_ascii=False))
    for split, lines in rows.items():
        (out / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {split: len(lines) for split, lines in rows.items()}


def _tones(random: np.random.Generator, length: int) -> NDArray[np.float32]:
    """A stereo melody `[2, T]`, two notes a second, each with an attack and a decay."""
    step = PROMPT_RATE // 2
    time = np.arange(step) / PROMPT_RATE
    envelope = np.minimum(time * 100, 1) * np.exp(-4 * time)
    pitches = random.choice(_SCALE, -(-length // step))
    melody = np.concatenate([envelope * np.sin(2 * np.pi * pitch * time) for pitch in pitches])[:length]
    return np.stack([0.5 * melody, 0.4 * melody]).astype(np.float32)
