"""What all encoders on torch share: running out of memory changes nothing but the size of the batches."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.errors import SystemFault
from audioprep.stages.encode import encode_samples

HOP = 8


def spec(batch_size: int) -> EncoderSpec:
    return EncoderSpec("conv", "latents", 8000, 1, HOP, 4 * HOP, HOP, HOP, batch_size, "none", dim=3)


class Conv(TorchEncoder):
    """A convolution that has no memory for more than `limit` windows at some of its calls."""

    def __init__(self, rows: int, limit: int | None = None, **settings: object) -> None:
        super().__init__(spec(rows), TorchSettings(weights="none", **settings))  # pyright: ignore[reportArgumentType]
        torch.manual_seed(0)
        self._conv = nn.Conv1d(1, 3, 2 * HOP, stride=HOP)
        self._limit = limit
        self.calls: list[int] = []

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        self.calls.append(len(samples))
        if self._limit and len(samples) > self._limit and len(self.calls) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._conv(samples)[:, :, 1:5].transpose(1, 2)


def song(samples: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (1, samples)).astype(np.float32)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_out_of_memory_halves_the_batch_and_changes_nothing(limit: int, caplog: pytest.LogCaptureFixture):
    expected = encode_samples(Conv(8), song())
    encoder = Conv(8, limit)
    np.testing.assert_array_equal(encode_samples(encoder, song()), expected)
    assert encoder.rows == {1: 1, 2: 2, 3: 2}[limit]
    assert "out of memory with 8 windows at once; going on with 4" in caplog.text
    assert encoder.calls[-1] == encoder.rows


def test_a_batch_that_does_not_divide_keeps_its_shape():
    encoder = Conv(6, 2)
    np.testing.assert_array_equal(encode_samples(encoder, song()), encode_samples(Conv(6), song()))
    assert encoder.rows == 1 and set(encoder.calls[4:]) <= {3, 1}


def test_no_memory_for_a_single_window():
    encoder = Conv(1, 0)
    encoder.forward = lambda samples, valid: (_ for _ in ()).throw(torch.OutOfMemoryError("no"))  # pyright: ignore
    encoder._run = encoder.forward
    with pytest.raises(SystemFault, match="conv: no memory on cpu for a single window of 0.0 s"):
        encode_samples(encoder, song())


def test_bfloat16_computes_in_bfloat16_and_gives_float32():
    expected = encode_samples(Conv(4), song())
    found = encode_samples(Conv(4, dtype="bfloat16"), song())
    assert found.dtype == np.float16  # latents are stored so
    assert 0 < np.abs(found.astype(np.float32) - expected).max() < 0.05


def test_settings_that_move_values_are_in_the_spec():
    plain = numeric_settings(TorchSettings(weights="x"))
    for change in ({"dtype": "bfloat16"}, {"tf32": True}, {"compile": True}, {"device": "cuda"}):
        assert numeric_settings(TorchSettings(weights="x", **change)) != plain  # pyright: ignore[reportArgumentType]
    assert numeric_settings(TorchSettings(weights="x", device="cuda:1")) == numeric_settings(
        TorchSettings(weights="x", device="cuda")
    )
    assert batch_size(TorchSettings(weights="x"), cpu=1, cuda=16) == 1
    assert batch_size(TorchSettings(weights="x", batch_size=3), cpu=1, cuda=16) == 3
