"""Copies made on purpose: each is decoded, and is what its name says."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audioprep.audio import load_audio, probe
from audioprep.dedup.copies import COPIES, make_copy
from audioprep.errors import InputError

RATE, SECONDS = 24000, 40.0
SEMITONE = 2 ** (1 / 12)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tone of 440 Hz that has a click at 20 s, over a low and a high one."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * np.sin(2 * np.pi * 80 * t) + 0.05 * np.sin(2 * np.pi * 8000 * t)
    tone[20 * RATE] = 0.9
    path = tmp_path_factory.mktemp("source") / "a.b.wav"
    soundfile.write(path, tone, RATE, "FLOAT")
    return path


def copied(name: str, source: Path, folder: Path) -> tuple[NDArray[np.float32], int]:
    samples, rate = load_audio(make_copy(name, source, folder / "copy"))
    return samples[0], rate


def level(samples: NDArray[np.float32], rate: int, hz: float) -> float:
    """Amplitude of a tone, over the first second after the fifth."""
    second = samples[5 * rate : 6 * rate]
    return 2 * abs(complex(np.mean(second * np.exp(-2j * np.pi * hz * np.arange(rate) / rate))))


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples[: 8 * rate] * np.hanning(8 * rate)))
    return float(np.argmax(spectrum)) / 8


def decibels(ratio: float | np.floating) -> float:
    return 20 * float(np.log10(ratio))


# Name: its length in seconds, its pitch, and where its click is.
EXPECTED = {
    "mp3-64k": (SECONDS, 440, 20),
    "ogg": (SECONDS, 440, 20),
    "resample": (SECONDS, 440, 20),
    "gain": (SECONDS, 440, 20),
    "eq": (SECONDS, 440, 20),
    "trim": (SECONDS - 10.3, 440, 12.7),
    "shift": (SECONDS, 440, 22),
    "excerpt": (SECONDS / 2, 440, 10),
    "speed-up": (SECONDS / 1.01, 444.4, 20 / 1.01),
    "speed-down": (SECONDS * 1.01, 435.64, 20.2),
    "pitch-up": (SECONDS, 440 * SEMITONE, 20),
    "pitch-down": (SECONDS, 440 / SEMITONE, 20),
    "fade": (SECONDS, 440, 20),
    "noise": (SECONDS, 440, 20),
    "loudness": (SECONDS, 440, 20),
}


@pytest.mark.parametrize("name", COPIES)
def test_length_and_pitch_and_place(name: str, source: Path, tmp_path: Path):
    seconds, hz, click = EXPECTED[name]
    samples, rate = copied(name, source, tmp_path)
    assert rate == RATE
    assert samples.size / rate == pytest.approx(seconds, abs=0.03)
    assert pitch(samples, rate) == pytest.approx(hz, rel=1e-3)
    assert np.argmax(np.abs(np.diff(samples))) / rate == pytest.approx(click, abs=0.05)
    assert np.array_equal(copied(name, source, tmp_path)[0], samples)


def test_levels(source: Path, tmp_path: Path):
    plain = load_audio(source)[0][0]

    def change(name: str, hz: float) -> float:
        samples, rate = copied(name, source, tmp_path)
        return decibels(level(samples, rate, hz) / level(plain, RATE, hz))

    assert change("gain", 440) == pytest.approx(-9, abs=0.05)
    assert change("eq", 80) > 4
    assert change("eq", 8000) < -4
    assert abs(change("eq", 440)) < 2
    assert abs(change("mp3-64k", 8000)) < 1


def test_noise_and_fade_and_shift(source: Path, tmp_path: Path):
    plain = load_audio(source)[0][0]
    noise = copied("noise", source, tmp_path)[0] - plain
    assert decibels(np.std(plain) / np.std(noise)) == pytest.approx(20, abs=0.1)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.01
    faded = copied("fade", source, tmp_path)[0]
    np.testing.assert_allclose(faded[5 * RATE : -5 * RATE], plain[5 * RATE : -5 * RATE], atol=1e-4)
    np.testing.assert_allclose(faded[2 * RATE], 0.4 * plain[2 * RATE], atol=1e-4)
    assert np.all(copied("shift", source, tmp_path)[0][: 2 * RATE] == 0)


def test_loudness_and_full_scale(tmp_path: Path):
    t = np.arange(12 * RATE) / RATE
    for amplitude in (0.02, 0.99):
        soundfile.write(tmp_path / "tone.wav", amplitude * np.sin(2 * np.pi * 1000 * t), RATE)
        # A tone of 1 kHz in one channel has a loudness of its level, 20 log10(rms), in LUFS (ITU-R BS.1770).
        samples, _ = copied("loudness", tmp_path / "tone.wav", tmp_path)
        assert decibels(np.std(samples)) == pytest.approx(-14, abs=1)
    assert np.abs(copied("eq", tmp_path / "tone.wav", tmp_path)[0]).max() <= 1


def test_formats(source: Path, tmp_path: Path):
    assert make_copy("mp3-64k", source, tmp_path / "a.b") == tmp_path / "a.b.mp3"
    assert (tmp_path / "a.b.mp3").stat().st_size == pytest.approx(SECONDS * 8000, rel=0.01)
    made = {name: probe(make_copy(name, source, tmp_path / "c")).codec for name in ("mp3-64k", "ogg", "gain")}
    assert made == {"mp3-64k": "mp3", "ogg": "vorbis", "gain": "flac"}


@pytest.mark.parametrize("name", COPIES)
def test_short_and_silent_and_stereo(name: str, tmp_path: Path):
    soundfile.write(tmp_path / "short.wav", np.zeros((48000, 2)), 96000)
    samples, _ = load_audio(make_copy(name, tmp_path / "short.wav", tmp_path / "copy"))
    assert len(samples) == (1 if name == "resample" else 2)
    assert np.abs(samples).max() < 1e-4


def test_what_is_no_audio(tmp_path: Path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"text\.wav"):
        make_copy("gain", tmp_path / "text.wav", tmp_path / "copy")
