"""Which backend decodes what, and what happens where one cannot."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from audio_helpers import FRAMES, RATE, Encoded, Samples, music, write_wav

from audioprep.audio import backends, decoders, load_audio, probe
from audioprep.audio.backends.base import AudioInfo, DecodeError
from audioprep.audio.source import inspect
from audioprep.errors import InputError, Reason


class FakeDecoder:
    """Gives a constant, and fails where it is told to."""

    positions = None
    is_bounded = True

    def __init__(self, value: float, fails_after: int | None = None) -> None:
        self.info = AudioInfo(RATE, 1, None, "fake", "wav", "mono")
        self.value, self.fails_after = value, fails_after
        self.is_closed = False

    def blocks(self) -> Iterator[Samples]:
        for index in range(3):
            if index == self.fails_after:
                raise DecodeError(Reason.CORRUPT, f"fake {self.value} fails at block {index}")
            yield np.full((1, 100), self.value, np.float32)

    def close(self) -> None:
        self.is_closed = True


Opener = FakeDecoder | Exception


@pytest.fixture
def wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backends, "order", lambda form: ["first", "second"])
    return write_wav(tmp_path / "a.wav", music(100))


def use(monkeypatch: pytest.MonkeyPatch, first: Opener, second: Opener) -> None:
    def load(name: str) -> SimpleNamespace:
        def open_fake(source: object) -> FakeDecoder:
            found = {"first": first, "second": second}[name]
            if isinstance(found, Exception):
                raise found
            return found

        return SimpleNamespace(open=open_fake)

    monkeypatch.setattr(backends, "load", load)


def test_the_first_that_works_decodes(wav: Path, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, FakeDecoder(0.1), AssertionError())
    np.testing.assert_array_equal(load_audio(wav)[0], np.full((1, 300), 0.1, np.float32))


@pytest.mark.parametrize("failure", [DecodeError(Reason.CORRUPT, "bad header"), ImportError("not installed")])
def test_where_one_cannot_open_the_next_decodes(failure: Exception, wav: Path, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, failure, FakeDecoder(0.2))
    assert load_audio(wav)[0][0, 0] == pytest.approx(0.2)
    assert probe(wav).codec == "fake"


def test_where_one_gives_no_block_the_next_decodes(wav: Path, monkeypatch: pytest.MonkeyPatch):
    first = FakeDecoder(0.1, fails_after=0)
    use(monkeypatch, first, FakeDecoder(0.2))
    assert load_audio(wav)[0][0, 0] == pytest.approx(0.2)
    assert first.is_closed


@pytest.mark.parametrize("block", [1, 2])
def test_an_error_after_the_first_block_is_final(block: int, wav: Path, monkeypatch: pytest.MonkeyPatch):
    first = FakeDecoder(0.1, fails_after=block)
    use(monkeypatch, first, AssertionError())
    with pytest.raises(InputError, match=rf"a\.wav: fake 0\.1 fails at block {block}"):
        load_audio(wav)
    assert first.is_closed


def test_when_none_works_the_first_error_tells(wav: Path, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, DecodeError(Reason.TRUNCATED, "the first"), DecodeError(Reason.CORRUPT, "the second"))
    with pytest.raises(InputError, match=r"a\.wav: the first") as caught:
        load_audio(wav)
    assert caught.value.reason is Reason.TRUNCATED


def test_without_any_decoder_doctor_is_named(wav: Path, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, ImportError(), ImportError())
    with pytest.raises(InputError, match="audioprep doctor") as caught:
        load_audio(wav)
    assert caught.value.reason is Reason.UNSUPPORTED


def decoded_by(name: str, path: Path) -> Samples:
    decoder = backends.load(name).open(inspect(path))
    try:
        return np.concatenate([block.copy() for block in decoder.blocks()], axis=1)
    finally:
        decoder.close()


@pytest.mark.parametrize("variant", ["wav-u8", "wav-16", "wav-24", "wav-float", "wav-mulaw", "aiff", "w64"])
def test_backends_agree_on_pcm_to_the_bit(variant: str, encoded: Encoded):
    expected = decoded_by("soundfile", encoded(variant))
    np.testing.assert_array_equal(decoded_by("pyav", encoded(variant)), expected)
    np.testing.assert_array_equal(decoded_by("ffmpeg", encoded(variant)), expected)


@pytest.mark.parametrize("variant", ["flac-24", "alac", "wavpack", "mp3-cbr", "vorbis", "opus"])
def test_the_ffmpeg_program_agrees_with_pyav(variant: str, encoded: Encoded):
    np.testing.assert_allclose(decoded_by("ffmpeg", encoded(variant)), decoded_by("pyav", encoded(variant)), atol=1e-4)


def test_the_ffmpeg_program_takes_over_in_full(encoded: Encoded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "order", lambda form: ["ffmpeg"])
    samples, rate = load_audio(encoded("flac-16"))
    assert (rate, samples.shape) == (RATE, (2, FRAMES))
    np.testing.assert_array_equal(samples, music())
    assert probe(encoded("wav-24")).channels == 2


def test_every_backend_tells_its_version_or_its_trouble(monkeypatch: pytest.MonkeyPatch):
    found = decoders()
    assert set(found) == {"soundfile", "pyav", "ffmpeg"}
    assert all("unavailable" not in version and version[0].isalnum() for version in found.values())

    def refuse() -> None:
        raise ImportError("no ffmpeg program")

    monkeypatch.setattr("audioprep.audio.backends.ffmpeg.program", refuse)
    assert decoders()["ffmpeg"] == "unavailable: no ffmpeg program"
