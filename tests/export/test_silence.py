from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latent_sets import SPEC, SilentEncoder

from audioprep.errors import UsageError
from audioprep.export import silence
from audioprep.export.silence import encode_silence, read_silence, silence_of
from audioprep.stages.windows import WindowCutter

ENTRY = SPEC.to_dict() | {"encoder": "vae", "encoder_settings": {"weights": "somewhere"}}


@pytest.mark.parametrize("frames", [1, 4, 5, 8, 30])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_silence_is_what_encoding_zeros_gives(frames: int, batch_size: int):
    encoder = SilentEncoder(replace(SPEC, batch_size=batch_size))
    cutter = WindowCutter(encoder.spec)
    zeros = np.zeros((2, frames * SPEC.hop_length), np.float32)
    windows = list(chain(cutter.push(zeros), cutter.finish()))
    expected = []
    for window in windows:
        samples = np.zeros((batch_size, 2, SPEC.length), np.float32)
        expected.append(encoder.encode(samples, np.array([(window.start, window.end)] * batch_size))[0])
    encoder.calls = 0
    np.testing.assert_array_equal(encode_silence(encoder, frames), np.concatenate(expected)[:frames])
    assert encoder.calls <= 4  # however long it is: beginning, middle, end


def test_the_encoder_of_the_shard_set_makes_it(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(silence, "load_encoder", lambda *arguments: asked.append(arguments) or SilentEncoder())
    assert silence_of(ENTRY, 9).shape == (9, 64)
    assert asked == [("vae", {"weights": "somewhere", "device": "cpu"})]
    with pytest.raises(UsageError, match="weights are no longer those that made the shard set.*--silence"):
        silence_of(ENTRY | {"fingerprint": "other"}, 9)


def test_an_encoder_that_cannot_be_loaded():
    with pytest.raises(UsageError, match="no encoder is called none.*--silence FILE.npy"):
        silence_of(ENTRY | {"encoder": "none"}, 9)


def test_silence_that_is_not_finite(monkeypatch: pytest.MonkeyPatch):
    encoder = SilentEncoder()
    monkeypatch.setattr(encoder, "encode", lambda *_: np.full((2, 4, 64), np.nan))
    monkeypatch.setattr(silence, "load_encoder", lambda *_: encoder)
    with pytest.raises(UsageError, match="not finite for silence"):
        silence_of(ENTRY, 9)


@pytest.mark.parametrize("shape", [(1, 64, 12), (64, 12)])
def test_a_file_of_silence(tmp_path: Path, shape: tuple[int, ...]):
    stored = np.arange(64 * 12, dtype=np.float32).reshape(shape)
    np.save(tmp_path / "silence.npy", stored)
    np.testing.assert_array_equal(read_silence(tmp_path / "silence.npy", 64, 12), stored.reshape(64, 12).T)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((1, 32, 12), np.float32), "of shape .1, 32, 12.; give finite numbers of shape .1, 64, N."),
        (np.zeros((2, 64, 12), np.float32), "of shape .2, 64, 12."),
        (np.zeros((64, 12), np.int64), "holds int64"),
        (np.full((64, 12), np.inf, np.float32), "finite numbers"),
        (np.zeros((64, 11), np.float32), "has 11 frames, and 12 are needed"),
        (b"nonsense", "cannot be read"),
    ],
)
def test_a_wrong_file_of_silence(tmp_path: Path, content: Any, message: str):
    path = tmp_path / "silence.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UsageError, match=message):
        read_silence(path, 64, 12)
