"""EMOPIA's own scripts over a folder of MIDI files, as they are; run by others.

What has died under them is given back: the NumPy name `np.int`, and a `duration` of miditoolkit's notes that can be
set.

Usage: python emopia_upstream.py CHECKOUT INPUT WORK, in an environment with miditoolkit and matplotlib. CHECKOUT is of
github.com/annahung31/EMOPIA. WORK gets what the scripts write, `events.json` and `dictionary.json` with what they
pickle, and `seconds.json`. Packages that they import and do not need for this are left empty.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import runpy
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from miditoolkit.midi.containers import Note  # pyright: ignore[reportMissingImports]


def main(checkout: Path, source: Path, work: Path) -> None:
    setattr(np, "int", int)  # noqa: B010 (gone since NumPy 1.24)
    del Note.duration  # read-only since miditoolkit 1.0
    for name in ("ipdb", "pandas", "seaborn"):
        sys.modules[name] = ModuleType(name)
    scripts = checkout.resolve() / "dataset"
    work.mkdir(parents=True, exist_ok=True)
    files = sorted(path.resolve() for path in source.glob("*.mid"))
    os.chdir(work)
    said = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(said):
        to_corpus: Any = runpy.run_path(str(scripts / "midi2corpus.py"))["proc_one"]
        to_events: Any = runpy.run_path(str(scripts / "corpus2events.py"))["corpus2event_cp"]
        for path in files:
            to_corpus(str(path), f"corpus/{path.name}.pkl")
            to_events(f"corpus/{path.name}.pkl", f"events/{path.name}.pkl")
        runpy.run_path(str(scripts / "event2words.py"), run_name="__main__")
        os.rename("wordstemp", "words")  # which `compile.py` reads
        runpy.run_path(str(scripts / "compile.py"), run_name="__main__")
    seconds = time.perf_counter() - began
    events = {path.name: pickle.loads(Path(f"events/{path.name}.pkl").read_bytes()) for path in files}
    rows = {name: [list(event.values()) for event in song] for name, song in events.items()}
    to_word, _ = pickle.loads(Path("dictionary.pkl").read_bytes())
    Path("events.json").write_text(json.dumps(rows))
    Path("dictionary.json").write_text(json.dumps({name: list(values) for name, values in to_word.items()}))
    Path("seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
