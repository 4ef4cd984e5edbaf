"""What HeartMuLa's sequence takes: a prompt of tags and lyrics, and behind it the frames of HeartCodec.

Read from SimpleTuner 4.10.1 (`helpers/models/heartmula/model.py`), the one published trainer of HeartMuLa; nothing in
it checks the range of ids or cuts what is too long.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioprep.errors import UsageError

FRAME_RATE = 12.5
CODEBOOKS = 8
CODEBOOK_SIZE = 8192
ENDING = 8193
"""The id that ends a song, in all codebooks of one last row."""
POSITIONS = 8192
"""Rows that the model has positions for: prompt and frames together."""
CHUNK = 372
"""Frames that HeartCodec encodes on their own (29.76 s): a cut at a multiple of them cuts through no chunk."""


class Fault(StrEnum):
    """What is wrong with one song or one row; the values are what reports name it by."""

    NO_TAGS = "no-tags"
    LIST_TAGS = "list-tags"
    NUMERIC_TAGS = "numeric-tags"
    NUMERIC_LYRICS = "numeric-lyrics"
    NOT_INTEGERS = "not-integers"
    WRONG_SHAPE = "wrong-shape"
    EIGHT_FRAMES = "eight-frames"
    WRONG_IDS = "wrong-ids"
    ENDING_WITHIN = "ending-within"
    WRONG_RATE = "wrong-rate"
    TOO_LONG = "too-long"
    TOO_LONG_TO_SING = "too-long-to-sing"
    LONG_PROMPT = "long-prompt"


EXPLAINED = {
    Fault.NO_TAGS: "has no tags; the model is conditioned on them, so give it some",
    Fault.LIST_TAGS: "has tags written as a list, which the model would read with its brackets; join them with commas",
    Fault.NUMERIC_TAGS: "has a number for tags, and not a text; name the style in words",
    Fault.NUMERIC_LYRICS: "has a number for lyrics, which SimpleTuner's index turns into one; write it out in words",
    Fault.NOT_INTEGERS: "has tokens that are not integers; they are no codes of HeartCodec",
    Fault.WRONG_SHAPE: "has tokens of another shape than [frames, 8]; encode it with HeartCodec",
    Fault.EIGHT_FRAMES: "has exactly 8 rows of 8 ids, which may be either way round, and is refused; lengthen it",
    Fault.WRONG_IDS: "has ids outside of 0 to 8191, which break the model's embedding or are no codes",
    Fault.ENDING_WITHIN: "has the id 8193 elsewhere than in one whole last row, where it ends the song",
    Fault.WRONG_RATE: "has not 12.5 frames a second: its tokens are of another encoder than HeartCodec's own",
    Fault.TOO_LONG: "does not fit: prompt and frames are more than 8192 rows",
    Fault.TOO_LONG_TO_SING: "is too long for one row, and its lyrics do not say which of its pieces they belong to",
    Fault.LONG_PROMPT: "has tags and lyrics that leave too little of 8192 rows for its frames",
}


class PromptLength:
    """Counts the rows of a prompt: tags, one for a style, lyrics.

    Args:
        tokenizer: HeartMuLa's `tokenizer.json`. Without it a byte counts as one token, which is an upper bound: its
            vocabulary is one of byte pairs.

    Attributes:
        unit: what it counts.

    Raises:
        UsageError: the file is no tokenizer.
    """

    def __init__(self, tokenizer: Path | None) -> None:
        self.unit = "by the tokenizer" if tokenizer else "in bytes; --tokenizer counts it exactly"
        self._tokenizer = None
        if tokenizer:
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(tokenizer))
            except Exception as error:  # the package raises the bare class
                raise UsageError(f"{tokenizer}: is no tokenizer: {error}. Give HeartMuLa's tokenizer.json.") from error

    def __call__(self, tags: str, lyrics: str) -> int:
        return self._tokens(f"<tag>{tags.strip().lower()}</tag>") + 1 + self._tokens(lyrics.strip().lower())

    def _tokens(self, text: str) -> int:
        """Tokens of a text with those of its begin and end, which the model adds where the tokenizer does not."""
        if self._tokenizer is None:
            return len(text.encode()) + 2
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids) + 2


def tags_fault(tags: str) -> Fault | None:
    """What SimpleTuner cannot take of tags, or the model would misread."""
    tags = tags.strip()
    if not tags:
        return Fault.NO_TAGS
    if tags[0] == "[" and tags[-1] == "]":
        return Fault.LIST_TAGS
    return Fault.NUMERIC_TAGS if is_numeric(tags) else None


def lyrics_fault(lyrics: str) -> Fault | None:
    """What SimpleTuner cannot take of lyrics; they may be empty."""
    return Fault.NUMERIC_LYRICS if is_numeric(lyrics) else None


def is_numeric(text: str) -> bool:
    """Whether readers of JSON lines and their users would make a number of a text."""
    for number in (float, int):
        try:
            number(text)
        except ValueError:
            continue
        return True
    return False


def token_fault(tokens: NDArray[np.generic]) -> Fault | None:
    """What is wrong with tokens that have to be integers `[frames, 8]`, with an ending or without.

    Eight rows are a fault of their own, and not looked for here.
    """
    if tokens.dtype.kind not in "iu":
        return Fault.NOT_INTEGERS
    if tokens.ndim != 2 or tokens.shape[1] != CODEBOOKS or not len(tokens):
        return Fault.WRONG_SHAPE
    frames = without_ending(tokens)
    if (frames == ENDING).any():
        return Fault.ENDING_WITHIN
    return Fault.WRONG_IDS if frames.size and (frames.min() < 0 or frames.max() >= CODEBOOK_SIZE) else None


def without_ending(tokens: NDArray[np.generic]) -> NDArray[np.generic]:
    """The tokens `[frames, 8]` without a last row that ends the song."""
    return tokens[:-1] if len(tokens) and (tokens[-1] == ENDING).all() else tokens


def lasts(frames: int, seconds: float) -> bool:
    """Whether so many frames are of so many seconds; 3 frames and 2 % are left to the many ways of measuring both."""
    expected = seconds * FRAME_RATE
    return abs(frames - expected) <= 3 + 0.02 * expected
