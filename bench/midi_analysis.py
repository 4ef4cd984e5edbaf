"""Not speed: the keys and chords that audioprep finds, beside those that analysts wrote down.

music21's corpus has analyses in Roman numerals of 20 chorales by Bach and 48 madrigals by Monteverdi. A piece's key
is the one that its analysis is in for the longest time. Chords are compared at every quarter note: the root, and root
with triad (major, minor, diminished, augmented). Beside ours stand, for the key, music21's `analyze("key")`; for
chords, what music21 calls the tones that begin or sound at the quarter, and the lowest tone taken for the root.

Run: `python bench/midi_analysis.py [--pieces 68]`. It needs the extra symbolic.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audioprep.symbolic.chords import recognise_chords
from audioprep.symbolic.keys import estimate_key
from audioprep.symbolic.read import midi_of_stream, read_score
from audioprep.symbolic.song import QUARTER, song_of
from audioprep.symbolic.vocabulary import PITCH_CLASSES, chord_values

TRIADS = {"major": "M", "minor": "m", "diminished": "o", "augmented": "+"}
OURS = {"M": "M", "7": "M", "M7": "M", "m": "m", "m7": "m", "o": "o", "o7": "o", "/o7": "o", "+": "+"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=68)
    options = parser.parse_args()
    right: Counter[str] = Counter()
    pieces = quarters = 0
    for number, (score, analysis, is_chorale) in enumerate(annotated()):
        if number == options.pieces:
            break
        chords = [chord for chord in analysis.recurse().getElementsByClass("RomanNumeral") if chord.root()]
        pieces += 1
        wanted_key = longest_key(chords)
        song = song_of(read_score(midi_of_stream(score), "piece.mid"), "piece.mid")
        right["key"] += estimate_key(song) == wanted_key
        theirs = score.analyze("key")
        right["key, music21"] += (theirs.tonic.pitchClass, theirs.mode == "minor") == wanted_key
        if not is_chorale:
            continue  # the madrigals' notes and analyses do not always have the same bars
        found = recognise_chords(song)
        ours = [chord_values()[id_] for id_ in found.ids]
        sounding = score.chordify()
        for chord in chords:
            begin = float(chord.getOffsetInHierarchy(analysis))
            for quarter in np.arange(np.ceil(begin), begin + float(chord.quarterLength)):
                quarters += 1
                wanted = chord.root().pitchClass, TRIADS.get(chord.quality)
                place = np.searchsorted(found.times, quarter * QUARTER + 1) - 1
                root, _, quality = ours[place].partition("_")
                mine = (PITCH_CLASSES.index(root) if root in PITCH_CLASSES else None), OURS.get(quality)
                count(right, "ours", mine, wanted)
                tones = sounding.recurse().getElementsByClass("Chord").getElementsByOffsetInHierarchy(quarter)
                for heard in list(tones)[:1]:
                    their = heard.root().pitchClass, TRIADS.get(heard.quality)
                    count(right, "music21", their, wanted)
                    right["root, lowest tone"] += heard.bass().pitchClass == wanted[0]
    print("| what | of | share right |\n| --- | ---: | ---: |")
    for name, value in right.items():
        total = pieces if name.startswith("key") else quarters
        print(f"| {name} | {total} | {value / max(total, 1):.3f} |")
    return 0


def count(right: Counter[str], whose: str, found: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    right[f"root, {whose}"] += found[0] == wanted[0]
    right[f"root and triad, {whose}"] += found == wanted


def annotated() -> Iterator[tuple[Any, Any, bool]]:
    """Scores with their analyses, and whether they are chorales; without repeats, which the analyses have once."""
    from music21 import converter, corpus

    warnings.simplefilter("ignore")
    folder = Path(corpus.__file__).parent
    for path in [*sorted(folder.glob("bach/*/*.rntxt")), *sorted(folder.glob("monteverdi/*.rntxt"))]:
        lines = path.read_text(encoding="utf-8").splitlines()
        number = next((line.split()[1] for line in lines if line.startswith("BWV:")), "")
        try:
            score: Any = corpus.parse(f"bach/bwv{number}" if number else f"monteverdi/{path.stem}.mxl")
            analysis = converter.parseData("\n".join(lines), format="romanText")
        except Exception as error:
            print(f"left out: {path.name}: {error}", file=sys.stderr)
            continue
        for measure in score.recurse().getElementsByClass("Measure"):
            measure.leftBarline = measure.rightBarline = None
        yield score, analysis, bool(number)


def longest_key(chords: list[Any]) -> tuple[int, bool]:
    lasts: defaultdict[tuple[int, bool], float] = defaultdict(float)
    for chord in chords:
        lasts[chord.key.tonic.pitchClass, chord.key.mode == "minor"] += float(chord.quarterLength)
    return max(lasts, key=lasts.__getitem__)


if __name__ == "__main__":
    sys.exit(main())
