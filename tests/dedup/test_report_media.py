"""Clips and pictures of the report, read by other programs than those that wrote them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from audio_helpers import correlation, ffmpeg, write_wav
from numpy.typing import NDArray
from PIL import Image

from audioprep.audio import load_audio, probe
from audioprep.dedup.report_media import BIT_RATE, RATE, cut_clip, ogg_opus, png, spectrogram
from audioprep.errors import InputError, Reason


def noise(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def tone(frequency: float, seconds: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def unpacked(uri: str, kind: str) -> bytes:
    head, _, data = uri.partition(";base64,")
    assert head == f"data:{kind}"
    return base64.b64decode(data)


def heard(uri: str, folder: Path) -> NDArray[np.float32]:
    """What ffmpeg makes of a clip's sound."""
    path = folder / "heard.ogg"
    path.write_bytes(unpacked(uri, "audio/ogg; codecs=opus"))
    ffmpeg("-i", path, "-ac", "1", "-ar", str(RATE), folder / "heard.wav")
    return load_audio(folder / "heard.wav")[0]


def test_a_clip_is_the_part_that_was_asked_for(tmp_path: Path):
    """Low tones, whose waveform Opus keeps: those from 2 s on, of a stereo file of another rate."""
    tones = np.concatenate([tone(frequency, 0.5) for frequency in (200, 700, 300, 600, 250, 800, 350, 500)])
    write_wav(tmp_path / "song.wav", np.stack([tones, tones]), RATE)
    ffmpeg("-i", tmp_path / "song.wav", "-ar", "32000", tmp_path / "song.flac")
    clip = cut_clip(str(tmp_path / "song.flac"), 1.25, 2.0)
    assert clip.seconds == 2
    sound = heard(clip.sound, tmp_path)
    assert sound.shape == (1, 2 * RATE)
    assert correlation(sound, tones[None, round(1.25 * RATE) : round(3.25 * RATE)]) > 0.95
    picture = Image.open(io.BytesIO(unpacked(clip.picture, "image/png")))
    assert picture.size == (67, 96)


def test_a_clip_ends_where_its_recording_ends(tmp_path: Path):
    path = str(write_wav(tmp_path / "song.wav", noise(3)[None], RATE))
    assert cut_clip(path, 2.5, 12).seconds == 0.5
    with pytest.raises(InputError, match="ends before 3.0 s") as raised:
        cut_clip(path, 3, 12)
    assert raised.value.reason == Reason.CHANGED
    one = str(write_wav(tmp_path / "one.wav", noise(1)[None, :1], RATE))
    assert cut_clip(one, 0, 12).seconds == 1 / RATE


def test_sound_has_the_length_that_went_in_and_a_bounded_size(tmp_path: Path):
    samples = noise(12)
    data = ogg_opus(samples)
    assert data == ogg_opus(samples)
    assert len(data) < 1.1 * 12 * BIT_RATE / 8
    (tmp_path / "noise.ogg").write_bytes(data)
    ffmpeg("-i", tmp_path / "noise.ogg", tmp_path / "noise.wav")
    assert probe(tmp_path / "noise.wav").frames == len(samples)


@pytest.mark.parametrize(("frequency", "row"), [(100, 92), (1000, 70), (8000, 24), (19_500, 0)])
def test_a_tone_is_a_line_at_its_height(frequency: float, row: int):
    """Mel of 1000 Hz is 1000, of the uppermost 20 kHz 3817, in 96 rows."""
    levels = spectrogram(tone(frequency, 1.0))
    assert levels.shape == (96, 34)
    assert abs(int(levels[:, 17].argmax()) - row) <= 1
    assert levels.max() == 31
    np.testing.assert_array_equal(levels, spectrogram(0.01 * tone(frequency, 1.0)))


def test_silence_is_dark():
    assert not spectrogram(np.zeros(RATE, np.float32)).any()


def test_a_picture_is_read_by_pillow():
    levels = np.arange(32, dtype=np.uint8).reshape(2, 16)
    picture = Image.open(io.BytesIO(png(levels)))
    assert (picture.size, picture.mode) == ((16, 2), "P")
    np.testing.assert_array_equal(np.asarray(picture), levels)
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert [tuple(colours[0]), tuple(colours[-1])] == [(13, 13, 30), (255, 255, 210)]
    assert (np.diff(colours.astype(int).sum(1)) > 0).all()
