"""Scores to tokens: audioprep beside MidiTok in a plain loop, and beside EMOPIA's own scripts.

The files are MIDI of music21's corpus (made once, in `--scores`), or those that lie in `--scores` already. Each
contender reads them, tokenizes them and writes the result. MidiTok's loop is `tokenizer(Score(path))` and its
`save_tokens`. EMOPIA's scripts get what they want: 480 ticks, tracks named piano, chords as markers. AUDIOPREP_EMOPIA
names a checkout of github.com/annahung31/EMOPIA, AUDIOPREP_EMOPIA_PYTHON a Python with miditoolkit and matplotlib;
without them that part is left out.

audioprep runs as it does for users, two workers, shards included. Its start (imports; MidiTok imports torch) is not
counted, nor is that of the others: the clock runs from when both workers have done their first part.

Exits 1 where audioprep is less than 1.8 times as fast as MidiTok's loop or 10 times as fast as EMOPIA's scripts, where
notes are other ones after words are turned back into MIDI, or where one of `--fuzz` damaged files is not accounted for.

Run: `python bench/midi.py [--scores FOLDER] [--count 240] [--copies 16] [--fuzz 1000] [--only remi emopia …]`.
It needs the extra symbolic.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from audioprep.cli.console import QuietConsole, QuietObserver
from audioprep.commands import midi
from audioprep.symbolic.chords import recognise_chords
from audioprep.symbolic.decode import decode_words
from audioprep.symbolic.read import read_score
from audioprep.symbolic.song import Song, song_of
from audioprep.symbolic.tokenizers import EmopiaSettings, EmopiaTokenizer
from audioprep.symbolic.vocabulary import MIN_VELOCITY, STEP, VELOCITY_BINS, chord_values, full_vocabulary
from audioprep.symbolic.words import nearest

FLOORS = {"remi": 1.8, "cp": 1.8, "emopia": 10.0}
WORKERS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, default=Path(tempfile.gettempdir(), "audioprep-scores"))
    parser.add_argument("--count", type=int, default=240, help="scores of music21's corpus")
    parser.add_argument("--copies", type=int, default=16, help="of each file, so that a run lasts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fuzz", type=int, default=0, help="damaged files")
    kinds = ["remi", "cp", "emopia", "roundtrip"]
    parser.add_argument("--only", nargs="*", choices=kinds, default=kinds)
    options = parser.parse_args()

    files = corpus_files(options.scores, options.count)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tokenizer in ("remi", "cp"):
            if tokenizer in options.only:
                source = copies(files, folder / "copies", options.copies)
                turns = [
                    (miditok_loop(tokenizer, files, folder / "loop"), ours_alone(tokenizer, source, folder / "out"))
                    for _ in range(options.repeats)
                ]
                faults += compare(tokenizer, "MidiTok in a loop", turns)
        if "emopia" in options.only and os.environ.get("AUDIOPREP_EMOPIA"):
            analysed(files, folder / "analysed")
            source = copies(sorted((folder / "analysed").glob("*.mid")), folder / "copies", 2 * options.copies)
            turns = [
                (
                    len(files) / upstream(folder / "analysed", folder / f"upstream-{turn}"),
                    ours_alone("emopia-cp", source, folder / "out"),
                )
                for turn in range(options.repeats)
            ]
            faults += compare("emopia", "EMOPIA's scripts", turns)
        if "roundtrip" in options.only:
            faults += roundtrip(files)
        if options.fuzz:
            faults += fuzz(files, options.fuzz, folder)
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "no faults")
    return 1 if faults else 0


def corpus_files(folder: Path, count: int) -> list[Path]:
    """MIDI files of small scores of music21's corpus: half chorales by Bach, half others. They are made once."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("*.mid"))
    if len(found) >= count:
        return found
    from music21 import corpus, stream
    from music21 import midi as music21_midi

    warnings.simplefilter("ignore")
    paths = [Path(path) for path in corpus.getCorePaths() if Path(path).suffix in (".mxl", ".xml", ".krn")]
    small = [path for path in paths if path.stat().st_size < (25_000 if path.suffix == ".mxl" else 60_000)]
    bach = [path for path in small if "bach" in path.parts]
    others = [path for path in small if "bach" not in path.parts]
    for path in [path for pair in zip(bach, others[:: max(1, len(others) // count)], strict=False) for path in pair]:
        if len(list(folder.glob("*.mid"))) >= count:
            break
        target = folder / f"{path.parent.name}_{path.stem}.mid"
        score: Any = corpus.parse(path)
        if not isinstance(score, stream.Opus):
            target.write_bytes(music21_midi.translate.streamToMidiFile(score).writestr())
    return sorted(folder.glob("*.mid"))


def copies(files: list[Path], folder: Path, count: int) -> Path:
    """A folder with each file so many times."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(count):
        for path in files:
            shutil.copy(path, folder / f"{number:03}_{path.name}")
    return folder


class Clock(QuietObserver):
    """When so many parts were done, and how many files were in them."""

    def __init__(self) -> None:
        self.done: list[tuple[float, int]] = []

    def part_done(self, entries: int, failed: int) -> None:
        self.done.append((time.perf_counter(), entries))


class Timed(QuietConsole):
    """Tells a clock how the run goes on."""

    def __init__(self) -> None:
        self.clock = Clock()

    @contextlib.contextmanager
    def observer(self) -> Iterator[Clock]:
        yield self.clock


def ours_alone(tokenizer: str, source: Path, out: Path) -> float:
    """Files a second of `audioprep midi`, from when every worker has done a part."""
    shutil.rmtree(out, ignore_errors=True)
    chords = {"chords": "markers"} if tokenizer == "emopia-cp" else {}
    wanted = {"source": [str(source)], "out": out, "tokenizer": tokenizer, "workers": WORKERS}
    console = Timed()
    summary = midi.run(midi.Settings.model_validate(wanted | chords), console)
    ended = time.perf_counter()
    assert summary["failed"] == 0
    (began, _), parts = console.clock.done[WORKERS - 1], console.clock.done[WORKERS:]
    return sum(entries for _, entries in parts) / (ended - began)


def miditok_loop(tokenizer: str, files: list[Path], folder: Path) -> float:
    """Files a second of MidiTok in a plain loop."""
    from symusic import Score

    from audioprep.symbolic.miditok_files import load, new_tokenizer

    theirs = load(new_tokenizer(tokenizer, {}))
    folder.mkdir(exist_ok=True)
    began = time.perf_counter()
    for path in files:
        theirs.save_tokens(theirs(Score(path)), folder / f"{path.stem}.json")
    return len(files) / (time.perf_counter() - began)


def analysed(files: list[Path], folder: Path) -> None:
    """The files as EMOPIA's scripts want them."""
    from symusic import TextMeta

    folder.mkdir()
    chords = chord_values()
    for number, path in enumerate(files):
        score: Any = read_score(path.read_bytes(), str(path))
        found = recognise_chords(song_of(score, str(path)))
        score = score.resample(480)
        for track in score.tracks:
            track.name = "piano"
        score.markers.append(TextMeta(0, "global_bpm_100"))
        for when, chord in zip(found.times, found.ids, strict=True):
            score.markers.append(TextMeta(int(when), f"{chords[chord]}_{chords[chord].partition('_')[0]}"))
        (folder / f"Q{number % 4 + 1}_{number:011d}_0.mid").write_bytes(score.dumps_midi())


def upstream(source: Path, work: Path) -> float:
    """Seconds of EMOPIA's scripts, from MIDI to arrays; what they say goes to `work`."""
    python = os.environ.get("AUDIOPREP_EMOPIA_PYTHON", sys.executable)
    script = Path(__file__).with_name("emopia_upstream.py")
    subprocess.run([python, str(script), os.environ["AUDIOPREP_EMOPIA"], str(source), str(work)], check=True)
    return float((work / "seconds.json").read_text())


def compare(name: str, peer: str, turns: list[tuple[float, float]]) -> list[str]:
    """Prints medians of files a second, and of the ratio of each turn."""
    ratio = median(ours / theirs for theirs, ours in turns)
    theirs, ours = (median(values) for values in zip(*turns, strict=True))
    print(f"| {name} | {peer} | {theirs:.1f} | {ours:.1f} | {ratio:.2f} |", flush=True)
    return [] if ratio >= FLOORS[name] else [f"{name}: {ratio:.2f} times {peer}, {FLOORS[name]} are wanted"]


def roundtrip(files: list[Path]) -> list[str]:
    """Whether a score has the same notes, up to the quantisation, after its words are turned into a MIDI file."""
    tokenizer = EmopiaTokenizer(EmopiaSettings(key="estimate"))
    vocabulary = full_vocabulary(True)
    wrong = notes = 0
    for path in files:
        before = read_score(path.read_bytes(), str(path))
        written = decode_words(tokenizer.encode(before, str(path)).tokens, vocabulary).dumps_midi()
        found = quantised(song_of(before, str(path)))
        wrong += found != quantised(song_of(read_score(written, str(path)), str(path)))
        notes += sum(found.values())
    print(f"round trip: {notes} notes of {len(files)} scores; other notes in {wrong}")
    return [f"round trip: {wrong} scores have other notes"] if wrong else []


def quantised(song: Song) -> Counter[tuple[int, int, int, int]]:
    """The notes: position from the first bar that has one, pitch, duration in positions, velocity."""
    start = np.rint(song.start / STEP).astype(int)
    duration = np.rint(np.minimum(song.end - song.start, 16 * STEP) / STEP).astype(int)
    velocity = np.maximum(VELOCITY_BINS[nearest(VELOCITY_BINS, song.velocity)], MIN_VELOCITY)
    start -= start.min() // 16 * 16
    return Counter(zip(*(values.tolist() for values in (start, song.pitch, duration, velocity)), strict=True))


def fuzz(files: list[Path], count: int, folder: Path) -> list[str]:
    """Damaged files through the real command: every one is a row or a failure, in good time."""
    source = folder / "damaged"
    source.mkdir()
    for number in range(count):
        chance = random.Random(number)
        data = damaged(chance.choice(files).read_bytes(), chance)
        (source / f"{number:06}.mid").write_bytes(data)
    faults = []
    for tokenizer in ("emopia-cp", "remi"):
        command = [sys.executable, "-m", "audioprep", "midi", source, "--out", folder / f"fuzz-{tokenizer}", "-q"]
        began = time.perf_counter()
        done = subprocess.run([*map(str, command), "--tokenizer", tokenizer, "--json"], capture_output=True, text=True,
                              timeout=60 + 2 * count, check=False)  # fmt: skip
        print(f"fuzz, {tokenizer}: {time.perf_counter() - began:.0f} s: {done.stdout.strip() or done.stderr[-500:]}")
        if done.returncode not in (0, 3) or f'"inputs": {count},' not in done.stdout:
            faults.append(f"{tokenizer}: exit code {done.returncode} on damaged files: {done.stderr[-500:]}")
    return faults


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file with bits flipped, parts lost, doubled or overwritten, or its end cut off."""
    found = bytearray(data)
    changes: list[Callable[[int], None]] = [
        lambda place: found.__setitem__(place, found[place] ^ 1 << chance.randrange(8)),
        lambda place: found.__delitem__(slice(place, place + chance.randrange(1, 30))),
        lambda place: found.__setitem__(slice(place, place), found[place : place + chance.randrange(1, 200)]),
        lambda place: found.__setitem__(slice(place, place + 4), chance.randbytes(4)),
        lambda place: found.__delitem__(slice(max(place, 40), None)),
    ]
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not found:
            break
        # Half of the damage is near the start, where headers, tempos and meters are.
        place = chance.randrange(len(found) if chance.random() < 0.5 else min(len(found), 200))
        chance.choices(changes, (6, 1, 1, 5, 1))[0](place)
    return bytes(found)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
