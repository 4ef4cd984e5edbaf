import math

import numpy as np
import pytest
import torch

from audioprep.encoders.mel import LogMel, griffin_lim, mel_filterbank
from audioprep.encoders.mel_grid import CONTEXT, FRAME, N_FFT, N_MELS, SAMPLE_RATE, STACK


def sine(frequency: float, frames: int, amplitude: float = 1.0) -> torch.Tensor:
    time = torch.arange(frames * FRAME + 2 * CONTEXT, dtype=torch.float64) / SAMPLE_RATE
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float()[None]


def test_filters_share_out_every_bin_between_the_outer_centres():
    filters = mel_filterbank()
    total = filters.sum(1)
    first, last = int(filters[:, 0].argmax()), int(filters[:, -1].argmax())
    torch.testing.assert_close(total[first + 1 : last], torch.ones(last - first - 1))
    assert filters.min() == 0
    assert filters.any(dim=0).all()


def test_full_scale_sine_is_the_reference_level():
    spectrum = LogMel("cpu")(sine(3000.0, 4)).view(-1, N_MELS)
    centre = int(mel_filterbank()[round(3000 * N_FFT / SAMPLE_RATE)].argmax())
    assert (spectrum.argmax(dim=1) == centre).all()
    assert spectrum.exp().sum(1) == pytest.approx(1.5, rel=0.01)  # 1 and the window's two side bins at 1/4


def test_each_level_is_relative_to_that_reference():
    log_mel = LogMel("cpu")
    loud, quiet = log_mel(sine(3000.0, 1)), log_mel(sine(3000.0, 1, 0.1))
    assert float(loud.max() - quiet.max()) == pytest.approx(math.log(100), abs=1e-3)


def test_silence_is_one_constant():
    values = LogMel("cpu")(torch.zeros(1, 2 * FRAME + 2 * CONTEXT))
    assert values.unique().tolist() == pytest.approx([math.log(1e-10)])


@pytest.mark.parametrize("frame", [0, 1, 3])
def test_a_click_is_loudest_in_the_frame_around_it(frame: int):
    samples = torch.zeros(1, 4 * FRAME + 2 * CONTEXT)
    samples[0, CONTEXT + frame * FRAME + FRAME // 2] = 1.0
    energy = LogMel("cpu")(samples).exp().sum(-1)[0]
    assert int(energy.argmax()) == frame


def test_agrees_with_torchaudio():
    transforms = pytest.importorskip("torchaudio.transforms")
    samples = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 8 * FRAME + 2 * CONTEXT))).float()
    reference = transforms.MelSpectrogram(
        SAMPLE_RATE, N_FFT, hop_length=FRAME // STACK, n_mels=N_MELS, center=False, mel_scale="htk", norm=None
    )(samples)
    scale = (2.0 / torch.hann_window(N_FFT).sum()) ** 2
    ours = LogMel("cpu")(samples).view(2, -1, N_MELS).exp()
    torch.testing.assert_close(ours, reference.mT * scale, rtol=2e-3, atol=1e-9)


def test_griffin_lim_gives_the_tone_back():
    log_mel = LogMel("cpu")(sine(440.0, 12, 0.5))[0]
    sound = griffin_lim(log_mel)
    assert sound.shape == (12 * FRAME,)
    peak = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs().argmax() * SAMPLE_RATE / len(sound)
    assert float(peak) == pytest.approx(440.0, abs=15.0)
    assert 0.2 < float(sound.abs().max()) <= 1.0
    assert torch.equal(sound, griffin_lim(log_mel))
