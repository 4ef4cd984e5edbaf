"""Damaged files of six formats: whatever is in them, they decode or end in an InputError, soon."""

import runpy
import time
from collections import Counter
from pathlib import Path

import numpy as np

from audioprep.audio import open_audio, probe
from audioprep.errors import InputError

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "fuzz.py"))


def outcome(path: Path) -> str:
    try:
        probe(path)
        with open_audio(path, sample_rate=16_000, channels=1) as stream:
            assert all(np.abs(block).max() <= 1 for block in stream)
    except InputError as error:
        return error.reason
    return "decoded"


def test_damaged_files_decode_or_end_in_an_input_error(tmp_path: Path):
    valid = FUZZ["valid_files"](tmp_path)
    outcomes: Counter[str] = Counter()
    for index in range(60):
        suffix, data = FUZZ["damaged"](valid, f"test-{index}")
        path = tmp_path / f"{index}.{suffix}"
        path.write_bytes(data)
        start = time.perf_counter()
        outcomes[outcome(path)] += 1
        assert time.perf_counter() - start < 10, path.name
    assert outcomes["decoded"] > 5  # the damage is not always fatal, nor always harmless
    assert len(outcomes) > 2


def test_the_same_seed_damages_alike(tmp_path: Path):
    valid = FUZZ["valid_files"](tmp_path)
    assert FUZZ["damaged"](valid, "0-1") == FUZZ["damaged"](valid, "0-1")
    assert len({FUZZ["damaged"](valid, f"0-{index}")[1] for index in range(50)}) > 45
