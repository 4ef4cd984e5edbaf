"""Decoding in a child process. The children get a `sitecustomize` that makes native-looking trouble."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from audio_helpers import Encoded, music

from audioprep.audio import load_audio, open_audio
from audioprep.errors import InputError, Reason, SystemFault

Trouble = Callable[[str], None]

PATCH = """
import os, sys, time
if "audioprep.audio.isolated" in " ".join(sys.orig_argv):
    from audioprep.audio.backends.pyav import PyAVDecoder
    original = PyAVDecoder.blocks
    def blocks(self):
        {0}
        yield from original(self)
    PyAVDecoder.blocks = blocks
"""


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    """Makes the children run a statement before they decode."""

    def make(statement: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(PATCH.format(statement))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return make


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@pytest.mark.parametrize("name", ["wav-16", "mp3-cbr"])
def test_the_samples_are_those_of_this_process(name: str, encoded: Encoded):
    expected, rate = load_audio(encoded(name), sample_rate=16_000, channels=1)
    with open_audio(encoded(name), sample_rate=16_000, channels=1, isolated=True) as stream:
        blocks = list(stream)
    assert (stream.sample_rate, stream.channels, stream.info.channels) == (rate, 1, 2)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
    assert children() == []


def test_input_errors_come_through(encoded: Encoded, tmp_path: Path):
    path = tmp_path / "half.flac"
    path.write_bytes(encoded("flac-16").read_bytes()[:20_000])
    with (
        open_audio(path, isolated=True) as stream,
        pytest.raises(InputError, match=r"half\.flac: 1\.361 s are declared") as caught,
    ):
        list(stream)
    assert caught.value.reason is Reason.TRUNCATED
    with pytest.raises(InputError, match=r"gone\.flac: there is no such file"):
        open_audio(tmp_path / "gone.flac", isolated=True)
    assert children() == []


def test_faults_of_the_machine_come_through(encoded: Encoded, trouble: Trouble):
    trouble("raise MemoryError")
    with pytest.raises(SystemFault, match="memory ran out"):
        open_audio(encoded("flac-16"), isolated=True)


@pytest.mark.parametrize(
    ("statement", "how"),
    [("os.kill(os.getpid(), 11)", "by signal SIGSEGV"), ("os._exit(7)", "with exit code 7")],
)
def test_a_crash_is_the_file_s_fault(statement: str, how: str, encoded: Encoded, trouble: Trouble):
    trouble(statement)
    with pytest.raises(InputError, match=rf"flac-16\.flac: the decoder process ended {how}") as caught:
        open_audio(encoded("flac-16"), isolated=True)
    assert caught.value.reason is Reason.CRASHED
    assert children() == []


def test_a_crash_in_the_middle(encoded: Encoded, trouble: Trouble):
    trouble("yield from original(self); os.abort()")
    with open_audio(encoded("flac-16"), isolated=True) as stream:
        blocks = iter(stream)
        np.testing.assert_array_equal(next(blocks), music()[:, :32_768])
        with pytest.raises(InputError, match="SIGABRT"):
            list(blocks)
    assert children() == []


def test_a_hang_ends_at_the_timeout(encoded: Encoded, trouble: Trouble):
    trouble("time.sleep(100)")
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"flac-16\.flac: the decoder gave nothing for 1\.5 s") as caught:
        open_audio(encoded("flac-16"), isolated=True, timeout=1.5)
    assert caught.value.reason is Reason.TIMEOUT
    assert 1.4 < time.perf_counter() - start < 10
    assert children() == []


def test_what_libraries_print_does_not_get_among_the_samples(encoded: Encoded, trouble: Trouble):
    trouble("os.write(1, b'native noise'); print('noise', flush=True)")
    with open_audio(encoded("flac-16"), isolated=True) as stream:
        np.testing.assert_array_equal(np.concatenate(list(stream), axis=1), music())


def test_leaving_early_ends_the_child(encoded: Encoded):
    with open_audio(encoded("wav-16"), isolated=True) as stream:
        next(iter(stream))
        (child,) = children()
    assert not child.is_running()
    stream.close()


def test_the_child_dies_with_its_parent_even_in_a_hang(encoded: Encoded, trouble: Trouble, tmp_path: Path):
    mark = tmp_path / "child"
    trouble(f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(100)")
    code = f"from audioprep.audio import open_audio; open_audio({str(encoded('flac-16'))!r}, isolated=True)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        child = psutil.Process(int(_wait_for(lambda: mark.exists() and mark.read_text())))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def _wait_for(condition: Callable[[], object]) -> str:
    end = time.monotonic() + 15
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return str(found)
