"""What SimpleTuner would find in one row of a data set for HeartMuLa, and what is wrong with it."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.export.heartmula import (
    CODEBOOKS,
    EXPLAINED,
    FRAME_RATE,
    POSITIONS,
    Fault,
    PromptLength,
    lasts,
    lyrics_fault,
    tags_fault,
    token_fault,
    without_ending,
)

NO_LYRICS = "has no lyrics (null); give an instrumental an empty text"
EMPTY_LYRICS = "has empty lyrics, which the local index drops; write one space for an instrumental"
NO_TOKENS = "has neither audio_tokens nor audio_tokens_path"
RELATIVE = "has a relative audio_tokens_path, and the entry has no instance_data_dir that it is relative to; add it"
NO_FILE = "its token file is not there; was the folder moved? Export again, or mend the path"
NO_ARRAY = "its token file cannot be read as one array of numbers (.npy, .npz, .pt); write it again"
LIST = "has a list for tags, which becomes a text with brackets and quotes; join them with commas"
NOT_TEXT = "has {} that are no text; write them as text"


@dataclass(frozen=True, slots=True)
class Song:
    """One row, as the trainer's own names for things have it.

    Attributes:
        name: by which people find it.
        key: by which SimpleTuner's caches know it.
        tags: whatever is there in place of a text.
        lyrics: likewise.
        tokens: in the row itself; None for none.
        path: of the token file; None for none.
        seconds: how long it lasts, as the row says; None where it does not.
    """

    name: str
    key: str
    tags: Any
    lyrics: Any
    tokens: Any
    path: str | None
    seconds: float | None


def texts_wrong(song: Song, *, local: bool) -> Iterator[str]:
    """What is wrong with the texts of a row.

    Args:
        song: the row.
        local: whether it is of a local index, which drops empty texts.
    """
    if isinstance(song.tags, str) or song.tags is None:
        if fault := tags_fault(song.tags or ""):
            yield EXPLAINED[fault]
    else:
        yield LIST if isinstance(song.tags, list) else NOT_TEXT.format("tags")
    if song.lyrics is None:
        yield NO_LYRICS
    elif not isinstance(song.lyrics, str):
        yield NOT_TEXT.format("lyrics")
    elif local and not song.lyrics:
        yield EMPTY_LYRICS
    elif fault := lyrics_fault(song.lyrics):
        yield EXPLAINED[fault]


def tokens_wrong(song: Song, root: str | None, prompt_length: PromptLength) -> Iterator[str]:
    """What is wrong with the tokens of a row.

    Args:
        song: the row.
        root: the entry's `instance_data_dir`.
        prompt_length: counts the rows of its prompt.
    """
    if song.tokens is not None:
        tokens = _array(song.tokens)
    elif not song.path:
        yield NO_TOKENS
        return
    elif not os.path.isabs(song.path) and not root:
        yield RELATIVE
        return
    elif not (path := Path(root or "", song.path)).is_file():
        yield NO_FILE
        return
    else:
        tokens = _read(path)
    if tokens is None:
        yield NO_ARRAY if song.tokens is None else EXPLAINED[Fault.WRONG_SHAPE]
        return
    if tokens.shape == (CODEBOOKS, CODEBOOKS):
        yield EXPLAINED[Fault.EIGHT_FRAMES]
        return
    if tokens.ndim == 2 and tokens.shape[0] == CODEBOOKS:  # it takes either orientation
        tokens = tokens.T
    if fault := token_fault(tokens):
        yield EXPLAINED[fault]
        if fault in (Fault.WRONG_SHAPE, Fault.NOT_INTEGERS):
            return
    frames = len(without_ending(tokens))
    if song.seconds is not None and not lasts(frames, song.seconds):
        yield f"{EXPLAINED[Fault.WRONG_RATE]} ({frames} in {song.seconds:g} s: {frames / max(song.seconds, 0.01):.3g})"
    if isinstance(song.tags, str) and isinstance(song.lyrics, str):
        rows = prompt_length(song.tags, song.lyrics) + len(tokens)
        if rows > POSITIONS:
            yield (
                f"{EXPLAINED[Fault.TOO_LONG]} ({rows}, prompt counted {prompt_length.unit}); cut it to pieces of at "
                f"most {(POSITIONS - rows + len(tokens)) / FRAME_RATE:.0f} s"
            )


def _array(values: Any) -> NDArray[np.generic] | None:
    try:
        return np.asarray(values)
    except ValueError:  # rows of unequal lengths
        return None


def _read(path: Path) -> NDArray[np.generic] | None:
    """The array in a token file, as SimpleTuner finds it."""
    try:
        if path.suffix.lower() not in (".npy", ".npz"):
            import torch

            tensor = torch.load(path, map_location="cpu", weights_only=True)
            return tensor.numpy() if isinstance(tensor, torch.Tensor) else None
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return loaded["tokens" if "tokens" in loaded else loaded.files[0]]
    except (OSError, ValueError, EOFError, IndexError, RuntimeError, TypeError):
        return None
    except (pickle.UnpicklingError, zipfile.BadZipFile):  # of .pt and .npz
        return None
    return loaded
