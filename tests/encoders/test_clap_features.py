import numpy as np
import pytest
import torch
from clap_helpers import CLIP, RATE, sound
from numpy.typing import NDArray
from transformers import ClapFeatureExtractor

from audioprep.encoders.clap_checkpoint import Features
from audioprep.encoders.clap_features import LogMel, cut_clips, int16_round_trip

SOUNDS = {
    "music": sound(10.0),
    "short": sound(2.7),
    "a tone": (0.5 * np.sin(2 * np.pi * 440 * np.arange(CLIP) / RATE)).astype(np.float32),
    "a click": np.eye(1, CLIP, 1000, dtype=np.float32)[0],
    "silence": np.zeros(CLIP, np.float32),
}


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_the_spectrogram_is_that_of_transformers(name: str, truncation: str):
    extractor = ClapFeatureExtractor(truncation=truncation, frequency_min=50)
    expected = extractor(SOUNDS[name], sampling_rate=RATE, return_tensors="np")["input_features"][0, 0]
    clip = whole(SOUNDS[name])
    found = LogMel(Features(htk=truncation == "fusion"))(clip)[0].numpy()
    assert found.shape == (1001, 64)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def whole(samples: NDArray[np.float32]) -> torch.Tensor:
    return cut_clips(torch.from_numpy(samples)[None], torch.tensor([[0, len(samples)]]), CLIP)


def test_a_short_file_is_repeated_as_often_as_it_fits():
    samples = torch.arange(1.0, 13.0)[None]
    np.testing.assert_array_equal(cut_clips(samples, torch.tensor([[4, 7]]), 8)[0], [5, 6, 7, 5, 6, 7, 0, 0])
    np.testing.assert_array_equal(cut_clips(samples, torch.tensor([[4, 12]]), 8)[0], np.arange(5, 13))
    np.testing.assert_array_equal(cut_clips(samples, torch.tensor([[0, 0]]), 8)[0], np.zeros(8))


def test_a_window_past_the_end_is_moved_back():
    samples = torch.cat([torch.arange(1.0, 11.0), torch.zeros(2)])[None]
    np.testing.assert_array_equal(cut_clips(samples, torch.tensor([[0, 10]]), 8)[0], np.arange(3, 11))


def test_16_bits_are_those_of_laion():
    values = np.concatenate([np.arange(-33_000, 33_000) / 32767, np.random.default_rng(0).uniform(-1.2, 1.2, 100_000)])
    values = values.astype(np.float32)
    laion = ((np.clip(values, -1.0, 1.0) * 32767.0).astype(np.int16) / 32767.0).astype(np.float32)
    np.testing.assert_array_equal(int16_round_trip(torch.from_numpy(values)).numpy(), laion)
