"""One recording, written in every format that is tested. Real encoders: libsndfile and the ffmpeg program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100
FRAMES = 60_001  # 1.36 s: no whole number of any codec's frames


def music(frames: int = FRAMES, channels: int = 2, rate: int = RATE) -> NDArray[np.int16]:
    """Sweeps, another one in each channel, under a swell: `[channels, frames]`, 16 bits."""
    time = np.arange(frames) / rate
    top = min(1500.0, rate / 8)
    rows = []
    for channel in range(channels):
        phase = 2 * np.pi * (150 + 70 * channel) * time + np.pi * (top - 200) * time**2 / (1 + 0.3 * channel)
        rows.append(0.4 * np.sin(phase) * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + channel) * time)))
    return np.round(np.stack(rows) * 32767).astype(np.int16)


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / 32768


def correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """The smallest correlation of a channel with its counterpart, over the length that both have."""
    length = min(left.shape[1], right.shape[1])
    return min(float(np.corrcoef(a[:length], b[:length])[0, 1]) for a, b in zip(left, right, strict=True))


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


@dataclass(frozen=True)
class Variant:
    """How to write the recording, and what must come out.

    Args:
        encode: libsndfile's (format, subtype), or options of ffmpeg.
        codec: as AudioInfo names it.
        container: likewise.
        exact: the samples are those of the 16-bit source.
        close: they differ by at most this.
        delay: samples that the encoder puts before the recording, where the file does not say so.
        extra: by how many samples the length may be off.
        declares: whether probing tells the length.
    """

    suffix: str
    encode: tuple[str, ...]
    codec: str
    container: str
    rate: int = RATE
    channels: int = 2
    exact: bool = False
    close: float | None = None
    delay: int = 0
    extra: int = 0
    declares: bool = True


def _pcm(suffix: str, form: str, subtype: str, codec: str, container: str | None = None, **how: float) -> Variant:
    exact = {} if how else {"exact": True}
    return Variant(suffix, (form, subtype), codec, container or suffix, **exact, **how)  # pyright: ignore[reportArgumentType]


VARIANTS: dict[str, Variant] = {
    "wav-u8": _pcm("wav", "WAV", "PCM_U8", "pcm_u8", close=1 / 128),
    "wav-16": _pcm("wav", "WAV", "PCM_16", "pcm_s16"),
    "wav-24": _pcm("wav", "WAV", "PCM_24", "pcm_s24"),
    "wav-32": _pcm("wav", "WAV", "PCM_32", "pcm_s32"),
    "wav-float": _pcm("wav", "WAV", "FLOAT", "pcm_f32"),
    "wav-double": _pcm("wav", "WAV", "DOUBLE", "pcm_f64"),
    "wav-mulaw": _pcm("wav", "WAV", "ULAW", "pcm_mulaw", close=1 / 32),
    "wav-alaw": _pcm("wav", "WAV", "ALAW", "pcm_alaw", close=1 / 32),
    "w64": _pcm("w64", "W64", "PCM_16", "pcm_s16"),
    "rf64": _pcm("rf64", "RF64", "PCM_24", "pcm_s24"),
    "aiff": _pcm("aiff", "AIFF", "PCM_16", "pcm_s16"),
    "au": _pcm("au", "AU", "PCM_16", "pcm_s16"),
    "caf": _pcm("caf", "CAF", "PCM_16", "pcm_s16"),
    "flac-16": _pcm("flac", "FLAC", "PCM_16", "flac"),
    "flac-24": _pcm("flac", "FLAC", "PCM_24", "flac"),
    "alac": Variant("m4a", ("-c:a", "alac"), "alac", "mp4", exact=True),
    "wavpack": Variant("wv", (), "wavpack", "wavpack", exact=True),
    "tta": Variant("tta", (), "tta", "tta", exact=True),
    "ogg-flac": Variant("oga", ("-c:a", "flac"), "flac", "oggflac", exact=True),
    "mp3-cbr": Variant("mp3", ("-b:a", "192k"), "mp3", "mp3"),
    "mp3-vbr-art": Variant("mp3", ("-q:a", "2"), "mp3", "mp3"),
    "mp3-bare": Variant("mp3", ("-b:a", "192k", "-write_xing", "0", "-id3v2_version", "0"), "mp3", "mp3"),
    "ogg-vorbis": Variant("ogg", ("-c:a", "libvorbis", "-q:a", "6"), "vorbis", "vorbis"),
    "opus": Variant("opus", ("-c:a", "libopus", "-b:a", "160k"), "opus", "opus", rate=48_000),
    "aac-m4a": Variant("m4a", ("-c:a", "aac", "-b:a", "192k"), "aac", "mp4"),
    "aac-adts": Variant("aac", ("-c:a", "aac", "-b:a", "192k"), "aac", "aac"),
    "wma": Variant("wma", ("-c:a", "wmav2", "-b:a", "192k"), "wmav2", "asf"),
    "ac3": Variant("ac3", ("-c:a", "ac3", "-b:a", "320k"), "ac3", "ac3"),
    "eac3": Variant("eac3", ("-c:a", "eac3", "-b:a", "320k"), "eac3", "ac3"),
    "mp2": Variant("mp2", ("-c:a", "mp2", "-b:a", "320k"), "mp2", "mp3"),
    "amr": Variant("amr", ("-c:a", "libopencore_amrnb", "-ar", "8000", "-ac", "1", "-b:a", "12.2k"), "amrnb", "amr", rate=8_000, channels=1),
    "mp4-video": Variant("mp4", ("-c:a", "aac", "-b:a", "192k"), "aac", "mp4"),
    "mov": Variant("mov", ("-c:a", "pcm_s16be"), "pcm_s16", "mp4", exact=True),
    "mkv": Variant("mkv", ("-c:a", "flac"), "flac", "matroska", exact=True),
    "webm": Variant("webm", ("-c:a", "libopus", "-b:a", "160k"), "opus", "matroska", rate=48_000),
    "mpegts": Variant("ts", ("-c:a", "mp2", "-b:a", "320k"), "mp2", "mpegts"),
    "avi": Variant("avi", ("-c:a", "pcm_s16le"), "pcm_s16", "avi", exact=True),
}
VIDEO = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1.4")


def write(name: str, folder: Path) -> Path:
    """Writes the recording as the variant of this name."""
    variant = VARIANTS[name]
    path = folder / f"{name}.{variant.suffix}"
    samples = music()
    if len(variant.encode) == 2 and variant.encode[0].isupper():
        form, subtype = variant.encode
        soundfile.write(path, (samples.T.astype(np.int32) << 16), RATE, format=form, subtype=subtype)
        return path
    wav = folder / f"{name}.source.wav"
    soundfile.write(wav, samples.T, RATE)
    if name == "mp4-video":
        ffmpeg("-i", wav, *VIDEO, *variant.encode, "-c:v", "mpeg4", path)
    elif name == "mp3-vbr-art":
        art = folder / "art.png"
        ffmpeg(*VIDEO, "-frames:v", "1", art)
        ffmpeg("-i", wav, "-i", art, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", *variant.encode, path)
    else:
        ffmpeg("-i", wav, *variant.encode, path)
    wav.unlink()
    return path
