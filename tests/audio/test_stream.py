import math
import os
from pathlib import Path

import numpy as np
import pytest
from audio_helpers import FRAMES, RATE, Encoded, ffmpeg, music, write_wav

from audioprep.audio import load_audio, open_audio, probe
from audioprep.audio.backends.pyav import PyAVDecoder
from audioprep.audio.backends.soundfile import SoundfileDecoder
from audioprep.errors import UsageError

LONG = 3 * 65_536 + 1234  # frames: several blocks of a decoder


@pytest.fixture(scope="session")
def long_flac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    wav = write_wav(folder / "long.wav", music(LONG))
    ffmpeg("-i", wav, folder / "long.flac")
    return folder / "long.flac"


@pytest.mark.parametrize("target", [None, 16_000])
@pytest.mark.parametrize("channels", [None, 1])
def test_blocks_are_the_whole_recording(target: int | None, channels: int | None, long_flac: Path):
    whole, rate = load_audio(long_flac, sample_rate=target, channels=channels)
    with open_audio(long_flac, sample_rate=target, channels=channels) as stream:
        assert (stream.sample_rate, stream.channels) == (rate, whole.shape[0])
        assert stream.info == probe(long_flac)
        blocks = list(stream)
    assert len(blocks) > 3 and max(block.shape[1] for block in blocks) < 40_000
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000]
)
@pytest.mark.parametrize("target", [8_000, 24_000, 44_100, 48_000, 192_000])
def test_resampled_length_and_content(rate: int, target: int, tmp_path: Path):
    frames = rate // 5 + 7
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(frames) / rate)[None].astype(np.float32)
    path = write_wav(tmp_path / "sine.wav", sine, rate, "FLOAT")
    samples, given = load_audio(path, sample_rate=target)
    assert (given, samples.shape) == (target, (1, math.ceil(frames * target / rate)))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples.shape[1]) / target)
    middle = slice(target // 40, -target // 40)  # the ends ring, as the sine begins and ends at once
    np.testing.assert_allclose(samples[0, middle], expected[middle], atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 100, 65_535, 65_536, 65_537])
@pytest.mark.parametrize("target", [8_000, 48_000])
def test_resampled_length_of_short_recordings(frames: int, target: int, tmp_path: Path):
    path = write_wav(tmp_path / "short.wav", music(frames))
    assert load_audio(path, sample_rate=target)[0].shape == (2, math.ceil(frames * target / RATE))


def test_samples_beyond_one_are_clipped(tmp_path: Path):
    path = write_wav(tmp_path / "hot.wav", 4 * music(1000), RATE, "FLOAT")
    np.testing.assert_array_equal(load_audio(path)[0], np.clip(4 * music(1000), -1, 1))


def test_resampling_overshoot_is_clipped(tmp_path: Path):
    path = write_wav(tmp_path / "square.wav", np.sign(music(10_000)) * 0.9999, RATE)
    peak = np.abs(load_audio(path, sample_rate=16_000)[0]).max()
    assert peak == 1


@pytest.mark.parametrize("name", ["wav-16", "flac-16", "mp3-cbr", "aac-m4a", "opus", "mkv-flac"])
def test_probing_decodes_nothing(name: str, encoded: Encoded, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: object) -> None:
        raise AssertionError("probe decoded")

    monkeypatch.setattr(PyAVDecoder, "blocks", refuse)
    monkeypatch.setattr(SoundfileDecoder, "blocks", refuse)
    assert probe(encoded(name)).frames
    with pytest.raises(AssertionError, match="probe decoded"):
        open_audio(encoded(name))


@pytest.mark.parametrize("name", ["wav-16", "w64", "aiff", "flac-16", "mp3-cbr"])
def test_probing_needs_the_beginning_alone(name: str, encoded: Encoded, tmp_path: Path):
    part = tmp_path / encoded(name).name
    part.write_bytes(encoded(name).read_bytes()[:30_000])
    assert probe(part).frames == FRAMES


@pytest.mark.parametrize("name", ["wav-16", "flac-16", "mp3-bare"])
def test_leaving_a_stream_early_closes_the_file(name: str, encoded: Encoded):
    before = os.listdir("/proc/self/fd")
    with open_audio(encoded(name)) as stream:
        assert next(iter(stream)).shape == (2, 32768)
        assert len(os.listdir("/proc/self/fd")) > len(before)
    stream.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 0}, "sample_rate 0: give 1000 to 1000000 Hz"),
        ({"channels": 0}, "channels 0: give 1 to 64"),
        ({"channels": 65}, "channels 65"),
        ({"timeout": 1.0}, "together with isolated=True"),
        ({"timeout": 0.0, "isolated": True}, r"timeout 0\.0"),
    ],
)
def test_arguments_out_of_range_are_usage_errors(settings: dict[str, float], message: str, encoded: Encoded):
    with pytest.raises(UsageError, match=message):
        open_audio(encoded("wav-16"), **settings)  # pyright: ignore[reportArgumentType]
