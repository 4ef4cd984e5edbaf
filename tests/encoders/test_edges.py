"""A stack of convolutions, cut into windows, gives what it gives on the whole file."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.edges import EdgeMask
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings
from audioprep.stages.encode import encode_samples

HOP = 10
CONTEXT = 4 * HOP


def stack() -> nn.Sequential:
    """Strides 2 (even) and 5 (odd), dilations, biases that make something out of silence."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 7, padding=3),
        nn.Tanh(),
        nn.Conv1d(4, 4, 7, dilation=3, padding=9),
        nn.Tanh(),
        nn.Conv1d(4, 8, 4, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv1d(8, 8, 10, stride=5, padding=3),
        nn.Tanh(),
        nn.Conv1d(8, 6, 3, padding=1),
    )


class Stack(TorchEncoder):
    def __init__(self, batch_size: int = 3, window: int = 6 * HOP, masked: bool = True) -> None:
        # Tokens, so that the floats stay what they are.
        spec = EncoderSpec("stack", "tokens", 8000, 1, HOP, window, CONTEXT, CONTEXT, batch_size, "none")
        super().__init__(spec, TorchSettings(weights="none"))
        self._model = stack()
        self._mask = EdgeMask(self._model, HOP) if masked else None

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        if self._mask is None:
            out = self._model(samples)
        else:
            with self._mask.at(valid, samples.shape[-1]):
                out = self._model(samples)
        return out[:, :, 4:-4].transpose(1, 2)


def whole(samples: np.ndarray) -> np.ndarray:
    padded = np.pad(samples, ((0, 0), (0, -samples.shape[1] % HOP)))
    with torch.inference_mode():
        return stack()(torch.from_numpy(padded)[None])[0].T.numpy()


@pytest.mark.parametrize("length", [1, 9, 10, 11, 59, 60, 61, 100, 101, 119, 120, 340, 601])
def test_windows_give_what_the_whole_gives(length: int):
    samples = np.random.default_rng(length).uniform(-1, 1, (1, length)).astype(np.float32)
    found = encode_samples(Stack(), samples)
    assert found.shape == whole(samples).shape
    np.testing.assert_allclose(found, whole(samples), atol=1e-6)


def test_without_the_mask_the_ends_differ():
    samples = np.random.default_rng(0).uniform(-1, 1, (1, 340)).astype(np.float32)
    difference = np.abs(encode_samples(Stack(masked=False), samples) - whole(samples)).max(axis=1)
    assert difference[[0, -1]].min() > 1e-3
    assert difference[5:-5].max() < 1e-6


def test_two_threads_in_one_model():
    """As on a GPU, where one batch is copied while another is computed."""
    encoder = Stack()
    songs = [np.random.default_rng(n).uniform(-1, 1, (1, 50 + 37 * n)).astype(np.float32) for n in range(40)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda samples: encode_samples(encoder, samples), songs))
    for samples, values in zip(songs, found, strict=True):
        np.testing.assert_allclose(values, whole(samples), atol=1e-6)
