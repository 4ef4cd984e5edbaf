"""One recording, written in every format that is tested. Real encoders: libsndfile and the ffmpeg program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 44_100
FRAMES = 60_001  # 1.36 s: no whole number of any codec's frames

Samples = NDArray[np.floating]
Encoded = Callable[[str], Path]  # the fixture `encoded`


def music(frames: int = FRAMES, channels: int = 2, rate: int = RATE) -> Samples:
    """A sweep under a swell, another one in each channel: `[channels, frames]`, values that 16 bits hold."""
    time = np.arange(frames) / rate
    top = min(1500.0, rate / 8)
    rows = []
    for channel in range(channels):
        phase = 2 * np.pi * (150 + 70 * channel) * time + np.pi * (top - 200) * time**2 / (1 + 0.3 * channel)
        rows.append(0.4 * np.sin(phase) * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + channel) * time)))
    return (np.round(np.stack(rows) * 32768) / 32768).astype(np.float32)


@cache
def reference(rate: int, channels: int) -> Samples:
    """The recording as a decoder of `rate` and `channels` should give it."""
    samples = music() if channels == 2 else music().mean(axis=0, keepdims=True)
    return samples if rate == RATE else soxr.resample(samples.T, RATE, rate, "VHQ").T


def correlation(left: Samples, right: Samples) -> float:
    """The smallest correlation of a channel with its counterpart, over the length that both have."""
    length = min(left.shape[1], right.shape[1])
    return min(float(np.corrcoef(a[:length], b[:length])[0, 1]) for a, b in zip(left, right, strict=True))


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True)


def write_wav(path: Path, samples: Samples, rate: int = RATE, subtype: str = "PCM_16", form: str = "WAV") -> Path:
    soundfile.write(path, samples.T, rate, format=form, subtype=subtype)
    return path


@dataclass(frozen=True)
class Variant:
    """How the recording is written, and what must come out.

    Args:
        encode: options of the ffmpeg program; or libsndfile's format and sample type, in capitals.
        codec: as AudioInfo names it; `container` likewise.
        error: no sample differs from the source by more; None where a codec is lossy.
        delay: samples that come out before the recording, where the file does not say so.
        tail: up to so many samples may come out after it.
        declared: samples that probing tells, or None; `slack`: it may tell up to so many more.
    """

    suffix: str
    encode: tuple[str, ...]
    codec: str
    container: str
    rate: int = RATE
    channels: int = 2
    error: float | None = None
    delay: int = 0
    tail: int = 0
    declared: int | None = FRAMES
    slack: int = 0


def _pcm(form: str, subtype: str, codec: str, *, suffix: str = "wav", error: float = 0.0) -> Variant:
    return Variant(suffix, (form, subtype), codec, suffix, error=error)


_192K = ("-b:a", "192k")
_VIDEO = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1.4")
_FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov")
_AMR = ("-c:a", "libopencore_amrnb", "-ar", "8000", "-ac", "1", "-b:a", "12.2k")

VARIANTS: dict[str, Variant] = {
    "wav-u8": _pcm("WAV", "PCM_U8", "pcm_u8", error=1 / 128),
    "wav-16": _pcm("WAV", "PCM_16", "pcm_s16"),
    "wav-24": _pcm("WAV", "PCM_24", "pcm_s24"),
    "wav-32": _pcm("WAV", "PCM_32", "pcm_s32"),
    "wav-float": _pcm("WAV", "FLOAT", "pcm_f32"),
    "wav-double": _pcm("WAV", "DOUBLE", "pcm_f64"),
    "wav-mulaw": _pcm("WAV", "ULAW", "pcm_mulaw", error=1 / 64),
    "wav-alaw": _pcm("WAV", "ALAW", "pcm_alaw", error=1 / 64),
    "wav-adpcm": Variant("wav", ("-c:a", "adpcm_ms"), "adpcm_ms", "wav", error=0.05, tail=2048, slack=2048),
    "w64": _pcm("W64", "PCM_16", "pcm_s16", suffix="w64"),
    "rf64": _pcm("RF64", "PCM_24", "pcm_s24", suffix="rf64"),
    "aiff": _pcm("AIFF", "PCM_16", "pcm_s16", suffix="aiff"),
    "aifc": Variant("aifc", ("-c:a", "pcm_s16le"), "pcm_s16", "aiff", error=0.0),
    "au": Variant("au", ("AU", "PCM_16"), "pcm_s16", "au", error=0.0, declared=None),
    "caf": _pcm("CAF", "PCM_16", "pcm_s16", suffix="caf"),
    "flac-16": _pcm("FLAC", "PCM_16", "flac", suffix="flac"),
    "flac-24": _pcm("FLAC", "PCM_24", "flac", suffix="flac"),
    "alac": Variant("m4a", ("-c:a", "alac"), "alac", "mp4", error=0.0),
    "wavpack": Variant("wv", (), "wavpack", "wavpack", error=0.0),
    "tta": Variant("tta", (), "tta", "tta", error=0.0),
    "ogg-flac": Variant("oga", ("-c:a", "flac"), "flac", "oggflac", error=0.0),
    "mov-pcm": Variant("mov", ("-c:a", "pcm_s16be"), "pcm_s16", "mp4", error=0.0),
    "mkv-flac": Variant("mkv", ("-c:a", "flac"), "flac", "matroska", error=0.0, declared=FRAMES - 25),  # whole ms
    "avi": Variant("avi", ("-c:a", "pcm_s16le"), "pcm_s16", "avi", error=0.0, declared=None),
    "mp3-cbr": Variant("mp3", _192K, "mp3", "mp3"),
    "mp3-vbr-art": Variant("mp3", ("-q:a", "2"), "mp3", "mp3"),
    "mp3-bare": Variant(
        "mp3", (*_192K, "-write_xing", "0", "-id3v2_version", "0"), "mp3", "mp3", delay=1105, tail=1152, declared=None
    ),
    "mp2": Variant("mp2", ("-b:a", "320k"), "mp2", "mp3", delay=481, tail=1152, declared=None),
    "vorbis": Variant("ogg", ("-c:a", "libvorbis", "-q:a", "6"), "vorbis", "vorbis"),
    "opus": Variant("opus", _192K, "opus", "opus", rate=48_000, tail=1, declared=65_307, slack=313),
    "webm-opus": Variant("webm", _192K, "opus", "matroska", rate=48_000, tail=1, declared=65_307, slack=400),
    "aac-m4a": Variant("m4a", _192K, "aac", "mp4"),
    "aac-mp4-video": Variant("mp4", (*_192K, "-c:v", "mpeg4"), "aac", "mp4"),
    "aac-fragmented": Variant("mp4", (*_192K, *_FRAGMENTED), "aac", "mp4", delay=1024, slack=1024),
    "aac-adts": Variant("aac", _192K, "aac", "aac", delay=1024, tail=1024, declared=None),
    # FFmpeg's decoder takes off two frames at the start; its encoder puts one there.
    "wma": Variant("wma", _192K, "wmav2", "asf", delay=-2048, tail=2048, declared=FRAMES, slack=2048),
    "ac3": Variant("ac3", ("-b:a", "320k"), "ac3", "ac3", delay=256, tail=1536, declared=None),
    "eac3": Variant("eac3", ("-b:a", "320k"), "eac3", "ac3", delay=256, tail=1536, declared=None),
    "mpegts-mp2": Variant("ts", ("-c:a", "mp2", "-b:a", "320k"), "mp2", "mpegts", delay=481, tail=1152, declared=None),
    "amr": Variant("amr", _AMR, "amr_nb", "amr", rate=8_000, channels=1, delay=40, tail=160, declared=None),
}


def write(name: str, folder: Path) -> Path:
    """Writes the recording as the variant of this name."""
    variant = VARIANTS[name]
    path = folder / f"{name}.{variant.suffix}"
    if variant.encode and variant.encode[0].isupper():
        form, subtype = variant.encode
        return write_wav(path, music(), RATE, subtype, form)
    wav = write_wav(folder / f"{name}-source.wav", music())
    if name == "aac-mp4-video":
        ffmpeg("-i", wav, *_VIDEO, *variant.encode, path)
    elif name == "mp3-vbr-art":
        art = folder / "art.png"
        ffmpeg(*_VIDEO, "-frames:v", "1", art)
        ffmpeg("-i", wav, "-i", art, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", *variant.encode, path)
    else:
        ffmpeg("-i", wav, *variant.encode, path)
    wav.unlink()
    return path
