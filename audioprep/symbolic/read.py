"""Reads MIDI, MusicXML, Humdrum and ABC from bytes into one form: a symusic score in ticks.

What is wrong with a file is an `InputError`; what can be put right in only one way is put right:

- notes that are never ended are dropped, as every MIDI reader does; a note without length keeps none;
- a tempo of 0 microseconds a quarter is dropped, and the tempo before it holds on;
- where there is no tempo, it is 120 quarters a minute, as the MIDI standard has it.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from audioprep.errors import InputError, Reason
from audioprep.scores.musicxml import parse_musicxml

if TYPE_CHECKING:
    from symusic.core import ScoreTick

MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar"})
_MUSIC21_FORMATS = {".musicxml": "musicxml", ".mxl": "musicxml", ".abc": "abc", ".krn": "humdrum"}
SCORE_SUFFIXES = MIDI_SUFFIXES | frozenset(_MUSIC21_FORMATS)
"""Lower-case suffixes, with their dot, of files that a folder scan takes for scores."""

MAX_QUARTERS = 200_000  # a day of music at 138 quarters a minute; more is a broken time stamp


def read_score(data: bytes, uri: str) -> ScoreTick:
    """Reads a file's bytes; which format they are is told by them, then by the name.

    Args:
        data: the whole file.
        uri: names it in errors; its suffix tells formats of text apart.

    Returns:
        A score with at least one note, at its own `ticks_per_quarter`.

    Raises:
        InputError: it is no score, damaged, of a kind that cannot be one sequence of tokens, or has no notes.
    """
    if not data:
        raise InputError(Reason.EMPTY, uri, "the file is empty")
    kind = _MUSIC21_FORMATS.get(os.path.splitext(uri)[1].lower())
    if kind and data[:4] != b"MThd":
        data = _midi_of(data, kind, uri)
    score = _read_midi(data, uri)
    if score.note_num() == 0:
        raise InputError(Reason.NO_NOTES, uri, "has no notes (a note counts when it begins and ends)")
    quarters = score.end() / score.ticks_per_quarter
    if score.start() < 0 or quarters > MAX_QUARTERS:
        detail = f"lasts {quarters:.3g} quarter notes; more than {MAX_QUARTERS} is taken for damage: cut it in parts"
        raise InputError(Reason.UNSUPPORTED, uri, detail)
    return score


def seconds_of_score(score: ScoreTick) -> float:
    """How long it lasts, by its tempos."""
    timed: Any = score.to("second")
    return float(timed.end())


def _read_midi(data: bytes, uri: str) -> ScoreTick:
    from symusic import Score

    if data[:4] != b"MThd" or len(data) < 14:
        raise InputError(Reason.CORRUPT, uri, "is no MIDI file: it does not begin with MThd")
    division = int.from_bytes(data[12:14], "big")
    if int.from_bytes(data[8:10], "big") == 2:
        detail = "is a MIDI file of format 2, which holds sequences that do not belong together: save each on its own"
        raise InputError(Reason.UNSUPPORTED, uri, detail)
    if division & 0x8000:
        detail = "counts time in SMPTE frames, so it has no beats: save it with ticks per quarter note"
        raise InputError(Reason.UNSUPPORTED, uri, detail)
    if division == 0:
        raise InputError(Reason.CORRUPT, uri, "has 0 ticks per quarter note")
    try:
        score: Any = Score.from_midi(data)
    except Exception as error:  # symusic's own types of errors are not the same in all versions
        message = str(error).replace("MiniMidi: ", "").strip()
        raise InputError(Reason.CORRUPT, uri, f"is damaged: {message}") from error
    if any(tempo.mspq <= 0 for tempo in score.tempos):
        score.tempos = [tempo for tempo in score.tempos if tempo.mspq > 0]
    return score


def _midi_of(data: bytes, kind: str, uri: str) -> bytes:
    """A score of another format as the bytes of a MIDI file, repeats played out; music21 reads it.

    Raises:
        InputError: it cannot be read, or holds several pieces.
    """
    from music21 import converter, stream

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "musicxml":
                return midi_of_stream(parse_musicxml(data, uri))
            # Not by path: music21 would keep, and later load, a pickle of the score.
            found: Any = converter.parseData(_text(data), format=kind)
            if isinstance(found, stream.Opus):
                pieces = len(found.scores)
                detail = f"holds {pieces} pieces, and a file is one item: save each in a file of its own"
                raise InputError(Reason.UNSUPPORTED, uri, detail)
            return midi_of_stream(found)
    except InputError:
        raise
    except Exception as error:  # music21 raises whatever its parsers stumble over
        name = type(error).__name__
        raise InputError(Reason.CORRUPT, uri, f"music21 cannot read it as {kind}: {name}: {error}") from error


def midi_of_stream(found: Any) -> bytes:
    """A score of music21 as the bytes of a MIDI file, without the chord symbols over it, which are no notes."""
    from music21 import harmony, midi

    symbols = list(found.recurse().getElementsByClass(harmony.Harmony))
    found.remove(symbols, recurse=True)
    return midi.translate.streamToMidiFile(found).writestr()


def _text(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
