"""Down-mixes of real files against gains worked out by hand from ITU-R BS.775-3 (table 2)."""

from pathlib import Path

import numpy as np
import pytest
from audio_helpers import Samples, correlation, ffmpeg, music, write_wav

from audioprep.audio import load_audio, probe
from audioprep.errors import InputError, Reason

H = 0.70710678  # -3 dB

# FFmpeg's name of the layout: what each channel gives to the left, the right, before the gains are scaled to 1.
LAYOUTS = {
    "2.1": ([1, 0, 0], [0, 1, 0]),
    "3.0": ([1, 0, H], [0, 1, H]),
    "4.0": ([1, 0, H, 0.5], [0, 1, H, 0.5]),
    "quad": ([1, 0, H, 0], [0, 1, 0, H]),
    "5.0": ([1, 0, H, H, 0], [0, 1, H, 0, H]),
    "5.1": ([1, 0, H, 0, H, 0], [0, 1, H, 0, 0, H]),
    "5.1(side)": ([1, 0, H, 0, H, 0], [0, 1, H, 0, 0, H]),
    "6.1": ([1, 0, H, 0, 0.5, H, 0], [0, 1, H, 0, 0.5, 0, H]),
    "7.1": ([1, 0, H, 0, H, 0, H, 0], [0, 1, H, 0, 0, H, 0, H]),
}


def encode(samples: Samples, layout: str, path: Path, *options: str) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes(samples.T.astype("<f4").tobytes())
    ffmpeg("-f", "f32le", "-ar", "48000", "-ch_layout", layout, "-i", raw, *options, path)
    return path


def by_hand(samples: Samples, layout: str) -> Samples:
    left, right = LAYOUTS[layout]
    return np.array([left, right], np.float32) / sum(left) @ samples


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_mixed_after_bs_775(layout: str, tmp_path: Path):
    source = music(2000, len(LAYOUTS[layout][0]), 48_000)
    path = encode(source, layout, tmp_path / "a.wav", "-c:a", "pcm_s16le")
    assert probe(path).layout == layout
    np.testing.assert_array_equal(load_audio(path)[0], source)
    np.testing.assert_allclose(load_audio(path, channels=2)[0], by_hand(source, layout), atol=1e-6)
    np.testing.assert_allclose(load_audio(path, channels=1)[0][0], by_hand(source, layout).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "options", "delay"),
    [
        ("flac", [], 0),
        ("m4a", ["-c:a", "alac"], 0),
        ("ogg", ["-c:a", "libvorbis", "-q:a", "8"], 0),
        ("opus", ["-b:a", "512k"], 0),
        ("mp4", ["-c:a", "aac", "-b:a", "512k"], 0),
        ("ac3", ["-b:a", "640k"], 256),
    ],
)
def test_formats_with_an_order_of_their_own_are_mixed_alike(
    suffix: str, options: list[str], delay: int, tmp_path: Path
):
    source = music(30_000, 6, 48_000)
    source[3] = 0.3 * np.sin(np.arange(30_000) * 2 * np.pi * 60 / 48_000)  # the bass channel, which is dropped
    path = encode(source, "5.1", tmp_path / f"a.{suffix}", *options)
    mixed = load_audio(path, channels=2)[0][:, delay:]
    assert correlation(mixed, by_hand(source, "5.1")) > 0.998


def test_six_channels_without_a_layout_have_that_of_wav(tmp_path: Path):
    source = music(1000, 6, 48_000)
    path = write_wav(tmp_path / "a.wav", source, 48_000)
    np.testing.assert_allclose(load_audio(path, channels=2)[0], by_hand(source, "5.1"), atol=1e-6)


def test_full_scale_does_not_clip(tmp_path: Path):
    path = encode(np.full((8, 100), 0.999, np.float32), "7.1", tmp_path / "a.wav", "-c:a", "pcm_s16le")
    assert load_audio(path, channels=2)[0].max() == pytest.approx(0.999, abs=1e-4)


def test_stereo_becomes_its_mean_and_mono_is_doubled(tmp_path: Path):
    source = music(1000)
    stereo = write_wav(tmp_path / "stereo.wav", source)
    mono = write_wav(tmp_path / "mono.wav", source[:1])
    np.testing.assert_allclose(load_audio(stereo, channels=1)[0][0], source.mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(load_audio(mono, channels=2)[0], source[[0, 0]])
    np.testing.assert_array_equal(load_audio(mono, channels=4)[0], source[[0, 0, 0, 0]])


@pytest.mark.parametrize(("channels", "wanted"), [(2, 3), (6, 4), (9, 2), (9, 1)])
def test_what_no_standard_says_is_refused(channels: int, wanted: int, tmp_path: Path):
    path = write_wav(tmp_path / "many.wav", music(500, channels))
    with pytest.raises(InputError, match=r"many\.wav: no standard says") as caught:
        load_audio(path, channels=wanted)
    assert caught.value.reason is Reason.UNSUPPORTED
    np.testing.assert_array_equal(load_audio(path)[0], music(500, channels))
