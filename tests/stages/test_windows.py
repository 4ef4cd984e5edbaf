import numpy as np
import pytest

from audioprep.encoders.base import EncoderSpec
from audioprep.stages.windows import Window, WindowCutter


def spec(window: int, left: int, right: int, channels: int = 1, kind: str = "tokens") -> EncoderSpec:
    return EncoderSpec("x", kind, 8000, channels, 2, window, left, right, 1, "")  # pyright: ignore[reportArgumentType]


def cut(signal: np.ndarray, spec: EncoderSpec, block: int = 64) -> list[Window]:
    cutter = WindowCutter(spec)
    windows = [w for start in range(0, signal.shape[1], block) for w in cutter.push(signal[:, start : start + block])]
    windows += cutter.finish()
    assert cutter.samples == signal.shape[1]
    return windows


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 3), (8, 8), (20, 20), (0, 5), (21, 2)])
@pytest.mark.parametrize("samples", [1, 7, 8, 9, 16, 50])
@pytest.mark.parametrize("block", [1, 5, 64])
def test_windows_follow_each_other_with_their_context(left: int, right: int, samples: int, block: int):
    signal = np.arange(1, 2 * samples + 1, dtype=np.float32).reshape(2, samples)
    windows = cut(signal, spec(8, left, right, channels=2), block)
    assert len(windows) == -(-samples // 8)
    around = np.pad(signal, ((0, 0), (left, 8 + right)))
    for number, window in enumerate(windows):
        np.testing.assert_array_equal(window.samples, around[:, 8 * number : 8 * number + 8 + left + right])
        own = np.flatnonzero(window.samples[0])
        assert (window.start, window.end) == (own[0], own[-1] + 1)


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (20, 1), (21, 2), (28, 2), (29, 3)])
def test_the_last_embedding_is_the_first_that_reaches_the_end(samples: int, count: int):
    clips = EncoderSpec("x", "embedding", 8000, 1, 8, 8, 8, 12, 1, "")  # clips of 20 samples, 8 apart
    windows = cut(np.ones((1, samples), np.float32), clips)
    assert len(windows) == clips.num_frames(samples) == count
    assert windows[-1].end <= 8 + 20
    assert windows[0].start == 8 and all(window.start == 0 for window in windows[1:])


def test_no_samples_give_no_window():
    assert cut(np.zeros((1, 0), np.float32), spec(8, 3, 3)) == []
