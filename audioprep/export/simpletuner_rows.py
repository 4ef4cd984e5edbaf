"""One song to the rows that SimpleTuner trains on: as it is, in pieces that fit, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audioprep.export.crops import CropPlan, Piece
from audioprep.export.heartmula import (
    CHUNK,
    CODEBOOKS,
    ENDING,
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
from audioprep.text.heartmula import normalize_lyrics, normalize_tags
from audioprep.text.timed_lyrics import sung_between, timed_lines

Long = Literal["segment", "segment-all", "drop"]


@dataclass(frozen=True, slots=True)
class Cutting:
    """What becomes of songs that do not fit into one row.

    Attributes:
        long: `segment`: they are cut where it is known which lyrics a piece has (there are none, or they have times),
            and left out elsewhere; `segment-all`: the others are cut, too, into pieces with empty lyrics; `drop`: all
            are left out.
        max_frames: of a row; None for as many as fit behind its prompt.
        multiple: of this many frames are all cuts, where that many fit.
        ending: a last row of `[8193] * 8` at the end of every song, and of no piece that ends within one.
    """

    long: Long = "segment"
    max_frames: int | None = None
    multiple: int = CHUNK
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of the data set says.

    Attributes:
        tags: conditions the model.
        lyrics: what is sung; empty for an instrumental.
        tokens: int16 `[frames, 8]`, with an ending or without.
        piece: the frames of the song that they are.
        seconds: how long they last.
        emptied: whether the song has lyrics that are not here, as no one knows which of them belong here.
    """

    tags: str
    lyrics: str
    tokens: NDArray[np.int16]
    piece: Piece
    seconds: float
    emptied: bool = False


class Rows:
    """Makes rows of songs.

    Args:
        cutting: what becomes of long ones.
        prompt_length: counts the rows of a prompt.
        normalize: whether texts become what HeartMuLa knows (`audioprep.text.heartmula`).
    """

    def __init__(self, cutting: Cutting, prompt_length: PromptLength, normalize: bool) -> None:
        self._cutting = cutting
        self._prompt_length = prompt_length
        self._normalize = normalize

    def of(self, tags: str, lyrics: str, tokens: NDArray[np.generic], seconds: float) -> list[Row | Fault]:
        """The rows of one song, with a fault in place of each that SimpleTuner would not take.

        Args:
            tags: of the song.
            lyrics: of the song; where they have times, these are taken off.
            tokens: `[frames, 8]`, as HeartCodec encodes the song; an ending that they have is taken off.
            seconds: how long it lasts.
        """
        lines = timed_lines(lyrics)
        tags = normalize_tags(tags)[0] if self._normalize else tags
        sung = self._lyrics(sung_between(lines, -math.inf, math.inf) if lines else lyrics.strip())
        tokens = without_ending(tokens)
        if fault := tags_fault(tags) or lyrics_fault(sung) or token_fault(tokens):
            return [fault]
        if not lasts(len(tokens), seconds):
            return [Fault.WRONG_RATE]
        room = self._room(tags, sung)
        if len(tokens) <= room:
            return [self._row(tags, sung, tokens, Piece(0, len(tokens)), seconds)]
        if self._cutting.long == "drop":
            return [Fault.TOO_LONG]
        emptied = bool(sung) and lines is None
        if emptied and self._cutting.long == "segment":
            return [Fault.TOO_LONG_TO_SING]
        if emptied:
            room = self._room(tags, "")
        if room < min(CHUNK, self._cutting.max_frames or CHUNK):
            return [Fault.LONG_PROMPT]
        rows: list[Row | Fault] = []
        for piece in self._pieces(len(tokens), room):
            here = sung_between(lines, piece.start / FRAME_RATE, piece.stop / FRAME_RATE) if lines else ""
            here = self._lyrics(here)
            rows.append(lyrics_fault(here) or self._row(tags, here, tokens, piece, seconds, emptied))
        return rows

    def _lyrics(self, text: str) -> str:
        return normalize_lyrics(text)[0] if self._normalize else text

    def _room(self, tags: str, lyrics: str) -> int:
        """Frames that fit behind a prompt."""
        room = POSITIONS - self._prompt_length(tags, lyrics) - self._cutting.ending
        return min(room, self._cutting.max_frames or room)

    def _pieces(self, frames: int, room: int) -> list[Piece]:
        """As few pieces as fit, of about one length, so that the last is no crumb."""
        multiple = self._cutting.multiple if room >= self._cutting.multiple else 1
        count = math.ceil(frames / (room // multiple * multiple))
        size = math.ceil(frames / count / multiple) * multiple
        return CropPlan("grid", size, tail="pad").pieces("", frames)

    def _row(
        self, tags: str, lyrics: str, tokens: NDArray[np.generic], piece: Piece, seconds: float, emptied: bool = False
    ) -> Row | Fault:
        own = tokens[piece.start : piece.stop].astype(np.int16)
        last = piece.stop == len(tokens)
        if last and self._cutting.ending:
            own = np.concatenate([own, np.full((1, CODEBOOKS), ENDING, np.int16)])
        if len(own) == CODEBOOKS:
            return Fault.EIGHT_FRAMES
        stop = seconds if last else piece.stop / FRAME_RATE
        lasting = max(stop - piece.start / FRAME_RATE, 1 / FRAME_RATE)
        return Row(tags.strip(), lyrics, own, piece, round(lasting, 3), emptied)
