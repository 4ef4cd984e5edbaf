"""Every way in which an input can be bad has its reason, and its name in the message."""

import errno
import os
import random
import signal
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audio_helpers import RATE, VARIANTS, Encoded, correlation, ffmpeg, music, reference, write_wav

from audioprep.audio import load_audio, open_audio, probe
from audioprep.audio.source import raise_os_error
from audioprep.errors import InputError, Reason, SystemFault


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Ends the tests where one hangs."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def reason_of(path: str | Path) -> Reason:
    """Why the file cannot be loaded; the message begins with its name, and says more than that."""
    with pytest.raises(InputError) as caught:
        load_audio(path)
    error = caught.value
    assert str(error) == f"{path}: {error.detail}"
    assert error.uri == str(path)
    assert len(error.detail) > 20
    return error.reason


def changed(path: Path, folder: Path, data: bytes | bytearray) -> Path:
    out = folder / f"changed{path.suffix}"
    out.write_bytes(data)
    return out


def test_empty_file(tmp_path: Path):
    path = tmp_path / "empty.mp3"
    path.touch()
    assert reason_of(path) is Reason.EMPTY


def test_missing_file(tmp_path: Path):
    assert reason_of(tmp_path / "missing.wav") is Reason.NOT_FOUND
    file = tmp_path / "file"
    file.touch()
    assert reason_of(file / "below-a-file.wav") is Reason.NOT_FOUND
    assert reason_of(f"{tmp_path}/nul\0.wav") is Reason.NOT_FOUND


def test_folder(tmp_path: Path):
    path = tmp_path / "x.wav"
    path.mkdir()
    assert reason_of(path) is Reason.NOT_A_FILE


def test_fifo_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    assert reason_of(path) is Reason.NOT_A_FILE


def test_socket_and_device(tmp_path: Path):
    path = tmp_path / "s.wav"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert reason_of(path) is Reason.NOT_A_FILE
    assert reason_of("/dev/zero") is Reason.NOT_A_FILE


def test_file_without_read_permission():
    with tempfile.TemporaryDirectory() as folder:
        path = write_wav(Path(folder, "secret.wav"), music(100))
        path.chmod(0)
        os.chmod(folder, 0o755)
        is_root = os.geteuid() == 0
        if is_root:  # root may read everything
            os.seteuid(65534)
        try:
            assert reason_of(path) is Reason.NO_PERMISSION
        finally:
            if is_root:
                os.seteuid(0)


@pytest.mark.parametrize("number", ["ENOSPC", "EMFILE", "ENOMEM"])
def test_faults_of_the_machine_are_not_the_file_s(number: str):
    with pytest.raises(SystemFault, match=r"^x\.wav: full"):
        raise_os_error(OSError(getattr(errno, number), "full"), "x.wav")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"%PDF-1.7\n" + b"1 0 obj << /Type /Catalog >> endobj\n" * 50,
        b"<html><body>404 Not Found</body></html>" * 100,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.ts\n",
        b"ffconcat version 1.0\nfile other.wav\n",
        b"PK\x03\x04" + random.Random(0).randbytes(5000),
        b"x",
        bytes(100_000),
    ],
    ids=["png", "pdf", "html", "playlist", "concat", "zip", "letter", "zeros"],
)
def test_what_is_not_audio(data: bytes, tmp_path: Path):
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    assert reason_of(path) is Reason.NOT_AUDIO


def test_video_without_sound(tmp_path: Path):
    path = tmp_path / "silent.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.5", "-c:v", "mpeg4", path)
    assert reason_of(path) is Reason.NOT_AUDIO
    with pytest.raises(InputError, match=r"silent\.mp4: it has no audio track"):
        probe(path)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_no_samples(subtype: str, tmp_path: Path):
    path = write_wav(tmp_path / "none.wav", np.zeros((2, 0), np.float32), RATE, subtype)
    assert reason_of(path) is Reason.NO_SAMPLES


@pytest.mark.parametrize("name", ["wav-16", "flac-16", "mp3-cbr", "vorbis", "opus", "aac-m4a", "aac-adts", "mkv-flac"])
@pytest.mark.parametrize("suffix", ["", ".txt", ".wav", ".mp3", ".m4a"])
def test_a_wrong_suffix_does_not_matter(name: str, suffix: str, encoded: Encoded, tmp_path: Path):
    path = tmp_path / f"wrong{suffix}"
    path.symlink_to(encoded(name))
    assert probe(path) == probe(encoded(name))
    samples, rate = load_audio(path)
    assert rate == VARIANTS[name].rate
    assert correlation(samples[:, VARIANTS[name].delay :], reference(rate, 2)) > 0.999


EXACT = ["wav-16", "wav-24", "wav-float", "wav-mulaw", "w64", "rf64", "aiff", "aifc", "flac-16", "tta", "mkv-flac"]


@pytest.mark.parametrize("name", [*EXACT, "mp3-cbr", "mp3-vbr-art", "aac-fragmented", "webm-opus"])
def test_truncated_files_that_declare_their_length(name: str, encoded: Encoded, tmp_path: Path):
    data = encoded(name).read_bytes()
    part = 0.9 if name in EXACT else 0.6
    assert reason_of(changed(encoded(name), tmp_path, data[: int(part * len(data))])) is Reason.TRUNCATED


@pytest.mark.parametrize("name", ["alac", "aac-m4a", "mov-pcm", "wavpack", "wma"])
def test_truncated_files_that_need_their_end(name: str, encoded: Encoded, tmp_path: Path):
    data = encoded(name).read_bytes()
    assert reason_of(changed(encoded(name), tmp_path, data[: len(data) // 2])) is Reason.CORRUPT


@pytest.mark.parametrize("name", ["flac-16", "vorbis", "opus", "mp3-cbr", "aac-m4a", "aac-adts", "ac3", "mkv-flac"])
def test_files_cut_within_their_header(name: str, encoded: Encoded, tmp_path: Path):
    assert reason_of(changed(encoded(name), tmp_path, encoded(name).read_bytes()[:100])) is Reason.CORRUPT


@pytest.mark.parametrize("filler", ["noise", "zeros"])
@pytest.mark.parametrize(
    "name",
    ["mp3-cbr", "mp3-bare", "mp2", "aac-m4a", "aac-adts", "aac-mp4-video", "alac", "wavpack", "ac3", "mpegts-mp2"],
)
def test_a_broken_middle(name: str, filler: str, encoded: Encoded, tmp_path: Path):
    data = bytearray(encoded(name).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = random.Random(0).randbytes(3000) if filler == "noise" else bytes(3000)
    path = changed(encoded(name), tmp_path, data)
    assert reason_of(path) is Reason.CORRUPT
    with open_audio(path) as stream:  # the audio before the fault comes out first
        blocks = iter(stream)
        assert next(blocks).shape[1] > 10_000
        with pytest.raises(InputError, match=r"in the middle|to its end"):
            list(blocks)


@pytest.mark.parametrize("name", ["flac-16", "mkv-flac", "ogg-flac", "vorbis", "opus"])
def test_parts_that_a_checksum_drops(name: str, encoded: Encoded, tmp_path: Path):
    data = bytearray(encoded(name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    assert reason_of(changed(encoded(name), tmp_path, data)) in (Reason.TRUNCATED, Reason.CORRUPT, Reason.NO_SAMPLES)


def test_lost_ogg_pages(tmp_path: Path):
    """Each page has a checksum; the demuxer drops a wrong one and says nothing."""
    wav = write_wav(tmp_path / "a.wav", music(5 * RATE))
    path = tmp_path / "a.opus"
    ffmpeg("-i", wav, "-b:a", "128k", "-page_duration", "200000", path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert reason_of(path) is Reason.CORRUPT
    with pytest.raises(InputError, match=r"0\.20 s are missing in the middle"):
        load_audio(path)


@pytest.mark.parametrize("name", ["mp3-cbr", "aac-adts", "flac-16"])
def test_junk_after_the_end_is_ignored(name: str, encoded: Encoded, tmp_path: Path):
    path = changed(encoded(name), tmp_path, encoded(name).read_bytes() + b"APETAGEX junk" * 30)
    np.testing.assert_array_equal(load_audio(path)[0], load_audio(encoded(name))[0])


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(subtype: str, value: float, tmp_path: Path):
    samples = music(100_000)
    samples[1, 70_000] = value
    path = write_wav(tmp_path / "nan.wav", samples, RATE, subtype)
    assert reason_of(path) is Reason.NON_FINITE
    with pytest.raises(InputError, match=r"nan\.wav: sample 70000 \(1\.587 s\) is not a finite number"):
        load_audio(path, sample_rate=16_000, channels=1)


def test_doubles_that_float32_cannot_hold(tmp_path: Path):
    samples = music(100).astype(np.float64)
    samples[0, 50] = 1e300
    assert reason_of(write_wav(tmp_path / "huge.wav", samples, RATE, "DOUBLE")) is Reason.NON_FINITE


@pytest.mark.parametrize(
    ("name", "offset", "field", "reason"),
    [
        ("wav-16", 40, struct.pack("<I", 2**31 - 8), Reason.TRUNCATED),  # bytes of samples
        ("w64", 96, struct.pack("<Q", 2**40), Reason.TRUNCATED),
        ("flac-16", 22, b"\xff\xff\xff\xff", Reason.TRUNCATED),  # the length's lower 32 bits
        ("wav-16", 24, struct.pack("<I", 0), Reason.CORRUPT),  # sample rate
        ("wav-16", 24, struct.pack("<I", 2**31 - 1), Reason.UNSUPPORTED),
        ("wav-16", 22, struct.pack("<H", 60_000), Reason.CORRUPT),  # channels
    ],
)
def test_headers_that_lie(name: str, offset: int, field: bytes, reason: Reason, encoded: Encoded, tmp_path: Path):
    data = bytearray(encoded(name).read_bytes())
    data[offset : offset + len(field)] = field
    assert reason_of(changed(encoded(name), tmp_path, data)) is reason


def test_a_wav_of_unknown_length_is_read_to_its_end(encoded: Encoded, tmp_path: Path):
    """Programs that write into a pipe cannot come back to fill in the length."""
    data = bytearray(encoded("wav-16").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path = changed(encoded("wav-16"), tmp_path, data)
    assert probe(path).frames is None
    np.testing.assert_array_equal(load_audio(path)[0], music())
