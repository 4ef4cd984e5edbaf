"""The bundled samples are there, small, neither silent nor clipped, with the promised special cases."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.error import InvalidDataError
from numpy.typing import NDArray

from audioprep.samples import sample_folder

AUDIO = sample_folder()
SIDE_CARS = {".txt", ".lyrics", ".json"}
FILES = sorted(path for path in AUDIO.rglob("*") if path.is_file())
SOUNDS = [path for path in FILES if path.suffix not in SIDE_CARS]
BROKEN = AUDIO / "music/broken.wav"
WHOLE = [path for path in SOUNDS if path != BROKEN]


def decode(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples [C, T] and the file's rate, by PyAV, which opens every format here."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler("fltp")
        blocks = [b.to_ndarray() for f in container.decode(audio=0) for b in resampler.resample(f)]
    return np.concatenate(blocks, axis=1, dtype=np.float32), rate


def codec(path: Path) -> tuple[str, str, int, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return path.suffix, stream.codec.canonical_name, stream.rate, stream.channels


def test_formats_rates_and_channels() -> None:
    suffixes, codecs, rates, channels = (set(column) for column in zip(*map(codec, WHOLE), strict=True))
    assert suffixes == {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}
    assert codecs == {"pcm_s16le", "flac", "mp3", "vorbis", "opus", "aac"}
    assert rates >= {22050, 24000, 44100, 48000}
    assert channels == {1, 2}


def test_total_size_stays_below_3_mb() -> None:
    assert len(WHOLE) >= 12
    assert sum(path.stat().st_size for path in FILES) < 3_000_000


def test_one_pair_of_exact_copies() -> None:
    same = defaultdict(list)
    for path in SOUNDS:
        same[hashlib.sha256(path.read_bytes()).hexdigest()].append(path.name)
    pairs = [sorted(names) for names in same.values() if len(names) > 1]
    assert pairs == [["greensleeves.opus", "greensleeves_copy.opus"]]


def test_reencoded_copy_sounds_like_its_original() -> None:
    original, rate = decode(AUDIO / "music/bach_chorale_bwv269.flac")
    again, again_rate = decode(AUDIO / "music/bach_chorale_bwv269_again.mp3")
    assert again_rate == rate
    size = min(again.shape[1], original.shape[1])
    assert max(again.shape[1], original.shape[1]) - size < 0.1 * rate
    first, second = (np.abs(np.fft.rfft(x[:, :size].mean(axis=0))) for x in (original, again))
    assert np.corrcoef(first, second)[0, 1] > 0.99


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_sound_is_neither_short_nor_silent_nor_clipped(path: Path) -> None:
    samples, rate = decode(path)
    shortest = 3 if "speech" in path.parts else 8
    assert shortest <= samples.shape[1] / rate <= 20
    assert 0.4 < np.abs(samples).max() < 0.95
    assert 0.05 < np.sqrt(np.mean(samples**2)) < 0.3


def test_nothing_decodes_the_broken_file() -> None:
    with pytest.raises(InvalidDataError):
        decode(BROKEN)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(BROKEN)


def test_side_cars_are_utf8_beside_their_sound() -> None:
    stems = {path.with_suffix("") for path in WHOLE}
    texts = {path: path.read_text(encoding="utf-8") for path in FILES if path.suffix in SIDE_CARS}
    assert {path.with_suffix("") for path in texts} <= stems
    assert all(text.strip() and "\r" not in text for text in texts.values())
    assert all("," in text for path, text in texts.items() if path.suffix == ".txt")
    facts = [json.loads(text) for path, text in texts.items() if path.suffix == ".json"]
    assert facts
    assert all(fact["licence"] == "CC0-1.0" for fact in facts)
    assert "[Chorus]" in texts[AUDIO / "music/traditional/greensleeves.lyrics"]
    assert "さくら" in texts[AUDIO / "music/traditional/さくら.lyrics"]
