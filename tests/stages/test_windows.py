import numpy as np
import pytest

from audioprep.encoders.base import EncoderSpec
from audioprep.stages.windows import cut_windows


def spec(window: int, context: int, channels: int = 1) -> EncoderSpec:
    return EncoderSpec(
        "x", "tokens", 8000, channels, hop_length=2, window=window, context=context, batch_size=1, fingerprint=""
    )


@pytest.mark.parametrize("context", [0, 3, 8, 20])  # shorter and longer than the window
@pytest.mark.parametrize("samples", [1, 7, 8, 9, 16, 50])
@pytest.mark.parametrize("block", [1, 5, 64])
def test_windows_follow_each_other_with_their_context(context: int, samples: int, block: int):
    signal = np.arange(1, 2 * samples + 1, dtype=np.float32).reshape(2, samples)
    blocks = [signal[:, start : start + block] for start in range(0, samples, block)]
    windows = list(cut_windows(blocks, spec(8, context, channels=2)))
    assert len(windows) == -(-samples // 8)
    around = np.pad(signal, ((0, 0), (context, 8 + context)))
    for number, window in enumerate(windows):
        np.testing.assert_array_equal(window, around[:, 8 * number : 8 * number + 8 + 2 * context])


def test_no_samples_give_no_window():
    assert list(cut_windows([], spec(8, 3))) == []
