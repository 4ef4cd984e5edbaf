"""Renders different pieces from music21's corpus, which sound alike: recordings that must not be taken for copies.

Chorales, masses, madrigals, quartets, rags and folk tunes are played by a few bands of synthetic instruments, some with
drums, 40 to 90 s each, at 24 kHz in one channel. Folders of the corpus are mixed, so that the first n pieces are a
smaller set of the same kind. The same command gives the same recordings, and keeps those that are there.

Left out is the same music again (chorales over one tune, a score in two formats): a piece is skipped where its top
voice and that of an earlier piece share more than 0.3 of the shorter one's sequences of 8 intervals. Key and rhythm do
not matter, nor do titles: they are missing or common ("Agnus", "movement 1").

Beside them are recordings that are alike and no copies either: covers, each a piece played by another band in another
tempo and key, and different pieces over one loop of drums. `pieces-320.json` tells what each file is.

    python bench/score_renders.py [--pieces 320] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
import warnings
import zlib
from functools import cache
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audioprep.samples.synth import TIMBRES, Samples, drum, envelope, normalize, partials, reverb

RATE = 24000
SHORTEST, LONGEST = 40, 90  # seconds
LONGEST_NOTE = 5.0  # seconds
SAME = 0.3
COVERS = LOOPS = 30
FOLDERS = {  # how many scores, or tunes of collections, are tried at most
    "bach/*.mxl": 140,
    "palestrina/*.krn": 80,
    "ryansMammoth/*.abc": 70,
    "monteverdi/*.mxl": 49,
    "airdsAirs/*.abc": 30,
    "oneills1850/*.abc": 30,
    "essenFolksong/*.abc": 40,
    "trecento/*.xml": 30,
    "haydn/*/*.mxl": 10,
    "mozart/*/*.mxl": 16,
    "beethoven/*/*.mxl": 20,
    "schumann_*/**/*.mxl": 10,
    "joplin/*.mxl": 1,
    "chopin/*.krn": 1,
    "corelli/*/*.xml": 1,
    "josquin/*.abc": 8,
}
BANDS = [
    ["organ"],
    ["piano"],
    ["strings"],
    ["reed", "strings", "strings", "strings"],
    ["flute", "pluck", "pluck", "strings"],
    ["pluck", "piano"],
    ["flute", "reed", "organ", "piano"],
]
DRUMS = ["K.h.S.h.K.K.S.hh", "K..hK..hS..hK.h.", "KhhhShhhKKhhShhh"]
LOOP = "K.hhS.h.KKh.S.hS"


class Note(NamedTuple):
    """Start and length in quarters, and the pitch in MIDI's numbers."""

    start: float
    length: float
    pitch: int


class Take(NamedTuple):
    """How a piece is played: voice by voice in turn by the instruments of a band, in so many onsets of the top voice
    a second, up by semitones, over a bar of sixteenths of drums (empty: none) of a tempo in quarters a minute (0: the
    piece's), for so many seconds."""

    band: int
    onsets: float
    up: int
    drums: str
    drum_tempo: float
    seconds: float


def candidates() -> list[tuple[str, int | None]]:
    """Scores in the corpus and the number of a tune in a collection, all folders mixed evenly."""
    from music21 import corpus

    base = Path(corpus.__file__).parent
    placed = []
    for pattern, wanted in FOLDERS.items():
        tunes: list[tuple[str, int | None]] = []
        for path in sorted(base.glob(pattern)):
            text = path.read_text("utf-8", "replace") if path.suffix == ".abc" else ""
            numbers = re.findall(r"^X:\s*(\d+)", text, re.M)
            name = path.relative_to(base).as_posix()
            tunes += [(name, int(number)) for number in numbers] if len(numbers) > 1 else [(name, None)]
        chosen = random.Random(pattern).sample(tunes, min(wanted, len(tunes)))
        placed += [((place + 0.5) / len(chosen), tune) for place, tune in enumerate(chosen)]
    return [tune for _, tune in sorted(placed, key=lambda one: (one[0], one[1][0]))]


def read_score(tune: tuple[str, int | None]) -> list[list[Note]]:
    """The voices of a score, the top one first, without those that are silent; none if music21 cannot read it."""
    from music21 import converter, corpus
    from music21.harmony import ChordSymbol

    name, number = tune
    which: dict[str, Any] = {} if number is None else {"number": number}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score: Any = converter.parse(Path(corpus.__file__).parent / name, forceSource=True, **which)
    except Exception as error:  # a score of somebody else's, which is not what is tested here
        print(f"{name}: skipped: {error}", flush=True)
        return []
    voices = []
    for part in score.parts:
        voice: list[Note] = []
        for note in part.flatten().notes:
            if isinstance(note, ChordSymbol):
                continue
            start, length = float(note.offset), float(note.quarterLength)
            if voice and note.tie and note.tie.type in ("stop", "continue"):
                voice[-1] = voice[-1]._replace(length=start + length - voice[-1].start)
            elif length:
                voice += [Note(start, length, pitch.midi) for pitch in note.pitches]
        if voice:
            voices.append(voice)
    return voices if len(voices) != 1 else [*voices, bass_of(voices[0])]


def bass_of(tune: list[Note]) -> list[Note]:
    """A second voice for a tune: its notes on every other quarter, one or two octaves down."""
    return [Note(note.start, 2, 36 + note.pitch % 12) for note in tune if note.start % 2 == 0]


def intervals(voice: list[Note]) -> set[bytes]:
    """The sequences of 8 intervals in a voice."""
    steps = np.diff([note.pitch for note in voice]).astype(np.int8).tobytes()
    return {steps[start : start + 8] for start in range(len(steps) - 7)}


def take_of(name: str) -> Take:
    """How a piece is played first; about a third of them have drums."""
    dice = random.Random(name)
    drums = dice.choice(["", "", "", "", "", *DRUMS])
    return Take(dice.randrange(len(BANDS)), dice.uniform(1.5, 3.5), 0, drums, 0, dice.uniform(45, LONGEST))


def cover_of(name: str) -> Take:
    """The same piece by another band, a sixth to a third faster or slower, in another key."""
    first, dice = take_of(name), random.Random(name + " cover")
    faster = dice.choice([1.2, 1.33, 1 / 1.2, 1 / 1.33])
    band = (first.band + dice.randrange(1, len(BANDS))) % len(BANDS)
    up = dice.choice([-4, -3, 2, 3])
    return first._replace(band=band, onsets=first.onsets * faster, up=up, drums="" if first.drums else DRUMS[0])


def strings(t: Samples, hz: float, length: float) -> Samples:
    """Bowed: all partials, with a vibrato."""
    k = np.arange(1, 21)
    bent = t + 0.0005 * np.sin(2 * np.pi * 5.6 * t) * 330 / hz
    return 0.35 * partials(bent, hz, 1 / k**1.2, np.zeros(20)) * envelope(t, length, attack=0.09, release=0.15)


def reed(t: Samples, hz: float, length: float) -> Samples:
    """Odd partials, as of a clarinet."""
    k = np.arange(1, 20)
    levels = np.where(k % 2 == 1, 1 / k, 0.08 / k)
    return 0.5 * partials(t, hz, levels, np.zeros(19)) * envelope(t, length, attack=0.03, release=0.08)


INSTRUMENTS = TIMBRES | {"strings": strings, "reed": reed}


@cache
def long_note(instrument: str, pitch: int) -> NDArray[np.float32]:
    """A note that is held for `LONGEST_NOTE`; shorter ones are cut from it."""
    t = np.arange(round((LONGEST_NOTE + 0.3) * RATE)) / RATE
    return INSTRUMENTS[instrument](t, 440 * 2 ** ((pitch - 69) / 12), LONGEST_NOTE).astype(np.float32)


@cache
def stroke(kind: str) -> NDArray[np.float32]:
    return drum(kind, RATE).astype(np.float32)


def render(voices: list[list[Note]], take: Take) -> Samples:
    """Plays a piece: samples `[T]`. What is too short is played again, by the next band each time."""
    top = voices[0]
    quarters = max(note.start + note.length for voice in voices for note in voice)
    quarter = len({note.start for note in top}) / take.onsets / (top[-1].start + top[-1].length - top[0].start)
    if take.drum_tempo:  # a tempo in which the loop and the piece go together
        quarter = 60 / take.drum_tempo * 2.0 ** round(np.log2(quarter * take.drum_tempo / 60))
    turns = 1 if quarters * quarter >= SHORTEST else int(np.ceil(SHORTEST / (quarters * quarter)))
    seconds = min(take.seconds, turns * quarters * quarter)
    mix = np.zeros((int(seconds) + 2) * RATE)  # whole seconds: a length whose Fourier transform is fast
    touch = np.random.default_rng(zlib.crc32(repr((take, quarters)).encode()))
    for turn in range(turns):
        band = BANDS[(take.band + turn) % len(BANDS)]
        for number, voice in enumerate(voices):
            for note in voice:
                start = (turn * quarters + note.start) * quarter + touch.uniform(0, 0.015)
                if start < seconds:
                    sound = long_note(band[number % len(band)], note.pitch + take.up)
                    add(mix, held(sound, note.length * quarter) * touch.uniform(0.7, 1), start)
    if take.drums:
        sixteenth = (60 / take.drum_tempo if take.drum_tempo else quarter * 2.0 ** round(np.log2(0.55 / quarter))) / 4
        level = 0.7 * np.sqrt(len(voices)) * (2 if take.drum_tempo else 1)
        for step in count():
            if step * sixteenth >= seconds:
                break
            if (kind := take.drums[step % len(take.drums)]) != ".":
                add(mix, level * stroke(kind), step * sixteenth)
    mix += 0.35 * reverb(mix[:, None], RATE).mean(axis=1)
    return normalize(mix * np.clip(np.arange(len(mix), 0, -1) / (0.5 * RATE), 0, 1))


def held(sound: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """The start of a long note, let go after `length` seconds and gone a tenth of a second later."""
    release = RATE // 10
    short = sound[: round(length * RATE) + release].copy()
    short[-release:] *= np.linspace(1, 0, len(short[-release:]), dtype=np.float32)
    return short


def add(mix: Samples, sound: NDArray[np.floating], start: float) -> None:
    at = round(start * RATE)
    sound = sound[: len(mix) - at]
    mix[at : at + len(sound)] += sound


def write(job: tuple[Path, list[list[Note]], Take]) -> float:
    """Renders into a file, if it is not there; its length in seconds."""
    path, voices, take = job
    if not path.exists():
        part = path.with_suffix(".part")
        soundfile.write(part, render(voices, take), RATE, "PCM_16", format="FLAC")
        part.rename(path)
    return soundfile.info(path).duration


def make_renders(out: Path, pieces: int) -> dict[str, Any]:
    """Makes `pieces` recordings of different pieces in `out`, or takes those that are there.

    Returns:
        pieces: a list of `file` (relative to `out`), `score`, `tune`, `seconds` and how it is played;
        alike: a list of `one`, `other` (files) and `why` (cover or loop), which are no copies of each other.
    """
    listing = out / f"pieces-{pieces}.json"
    if listing.exists():
        return json.loads(listing.read_text("utf-8"))
    (out / "pieces").mkdir(parents=True, exist_ok=True)
    (out / "alike").mkdir(exist_ok=True)
    known: list[set[bytes]] = []
    rows: list[dict[str, Any]] = []
    jobs: list[tuple[Path, list[list[Note]], Take]] = []
    with get_context("fork").Pool(2) as pool:
        for tune, voices in zip(tunes := candidates(), pool.imap(read_score, tunes, chunksize=4), strict=True):
            if len(known) == pieces:
                pool.terminate()
                break
            music = intervals(voices[0]) if voices else set()
            if len(music) < 12 or any(len(music & one) > SAME * min(len(music), len(one)) for one in known):
                continue
            known.append(music)
            name = re.sub(r"\W+", "-", Path(tune[0]).with_suffix("").as_posix()) + (f"-{tune[1]}" if tune[1] else "")
            rows.append({"file": f"pieces/{len(rows):03d}-{name}.flac", "score": tune[0], "tune": tune[1]})
            rows[-1] |= take_of(name)._asdict()
            jobs.append((out / rows[-1]["file"], voices, take_of(name)))
    alike: list[dict[str, str]] = []
    for number, (row, (path, voices, take)) in enumerate(zip(rows[:COVERS], jobs[:COVERS], strict=True)):
        cover, loop = f"alike/cover-{number:03d}.flac", f"alike/loop-{number:03d}.flac"
        alike.append({"one": row["file"], "other": cover, "why": "cover"})
        jobs.append((out / cover, voices, cover_of(path.stem[4:])))
        jobs.append((out / loop, voices, take._replace(drums=LOOP, drum_tempo=100, up=1)))
        alike += [{"one": f"alike/loop-{one:03d}.flac", "other": loop, "why": "loop"} for one in range(number)]
    with get_context("fork").Pool(2) as pool:
        seconds = pool.map(write, jobs, chunksize=4)
    for row, length in zip(rows, seconds, strict=False):
        row["seconds"] = length
    made = {"sample_rate": RATE, "pieces": rows, "alike": alike, "seconds": sum(seconds)}
    listing.write_text(json.dumps(made, indent=1), encoding="utf-8")
    return made


def default_folder() -> Path:
    """Under the folder of the system for temporary files."""
    return Path(tempfile.gettempdir()) / "audioprep-score-renders"


def main() -> None:
    """Renders, and says how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pieces", type=int, default=320)
    parser.add_argument("--out", type=Path, default=default_folder())
    arguments = parser.parse_args()
    begin = time.perf_counter()
    made = make_renders(arguments.out, arguments.pieces)
    spent = time.perf_counter() - begin
    print(f"{arguments.out}: {len(made['pieces'])} pieces, {made['seconds'] / 3600:.2f} h with covers and loops,")
    print(f"{len(made['alike'])} pairs alike, in {spent:.0f} s ({made['seconds'] / spent:.0f} times real time)")


if __name__ == "__main__":
    main()
