import numpy as np
import pytest
from audio_helpers import VARIANTS, Encoded, correlation, reference

from audioprep.audio import load_audio, probe


@pytest.mark.parametrize("name", VARIANTS)
def test_every_format_gives_the_recording(name: str, encoded: Encoded):
    variant, path = VARIANTS[name], encoded(name)
    samples, rate = load_audio(path)
    source = reference(variant.rate, variant.channels)
    assert (rate, samples.dtype, samples.flags.c_contiguous) == (variant.rate, np.float32, True)
    assert samples.shape[0] == variant.channels
    aligned, source = samples[:, max(0, variant.delay) :], source[:, max(0, -variant.delay) :]
    assert 0 <= aligned.shape[1] - source.shape[1] <= variant.tail
    if variant.error is None:
        assert correlation(aligned, source) > (0.9 if name == "amr" else 0.999)
    else:
        assert np.abs(aligned[:, : source.shape[1]] - source).max() <= variant.error


@pytest.mark.parametrize("name", VARIANTS)
def test_probe_tells_what_the_file_holds(name: str, encoded: Encoded):
    variant = VARIANTS[name]
    info = probe(encoded(name))
    assert (info.codec, info.container) == (variant.codec, variant.container)
    assert (info.sample_rate, info.channels) == (variant.rate, variant.channels)
    if variant.declared is None:
        assert info.frames is None
        assert info.duration is None
    else:
        assert info.frames is not None
        assert variant.declared <= info.frames <= variant.declared + variant.slack
        assert info.duration == info.frames / info.sample_rate
