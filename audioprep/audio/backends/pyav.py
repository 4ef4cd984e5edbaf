"""PyAV: FFmpeg's libraries in process. Opens nearly everything, and tells what is in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends.base import (
    BLOCK_FRAMES,
    AudioInfo,
    DecodeError,
    broken_file,
    check_shape,
    to_float,
)
from audioprep.audio.source import Source
from audioprep.errors import Reason

if TYPE_CHECKING:
    from av import AudioFifo, AudioFrame, AudioLayout
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# The demuxers that may read an input. Playlists (hls, concat, dash) and image lists would open other files.
DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,mov,mp3,mpc,mpc8,mpeg,mpegts,matroska,"
    "ogg,rm,sox,tak,truehd,tta,voc,w64,wav,wv"
)
# Formats whose header or last page says how long the track is; elsewhere FFmpeg guesses from the bit rate.
_DECLARING = {"wav", "rf64", "w64", "aiff", "flac", "mp3", "mp4", "asf", "vorbis", "opus", "oggflac", "caf"}
_DECLARING |= {"wavpack", "tta", "ape"}
_OGG = {"vorbis", "opus", "oggflac", "ogg"}
_LOST_SECONDS = 0.1  # a jump of an Ogg stream's clock by more than this means that pages are missing
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


@cache
def _av() -> ModuleType:
    """The library, made quiet: by default FFmpeg writes about every odd header to stderr."""
    import av
    import av.logging

    av.logging.set_level(None)
    return av


def version() -> str:
    av = _av()
    return f"{av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"


def open(source: Source) -> PyAVDecoder:
    return PyAVDecoder(source)


class PyAVDecoder:
    """The first audio track of a file, through libavformat and libavcodec, on one thread."""

    def __init__(self, source: Source) -> None:
        self._av = _av()
        self._format = source.format
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
        if source.format in ("wav", "rf64", "w64"):
            options["probesize"] = "65536"  # otherwise 5 MB are searched for DTS that poses as PCM
        try:
            self._container: InputContainer = self._av.open(
                f"file:{source.path}", options=options, metadata_errors="replace"
            )
        except (self._av.FFmpegError, UnicodeError) as error:
            raise self._error(error, "no audio can be found in it") from error
        try:
            self._stream = self._first_track()
            self.info = self._describe(source)
            self.positions = _positions(self._stream.layout)
        except BaseException:
            self.close()
            raise
        self.is_bounded = self._stream.format.name[:3] not in ("flt", "dbl")

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        # Converting each small frame in Python would take as long as decoding; libavutil's FIFO joins them.
        fifo = self._av.AudioFifo()
        clock = _Clock()
        last: AudioFrame | None = None
        fault: DecodeError | None = None
        held = total = samples = 0
        pts: int | None = None
        try:
            for frame in self._frames():  # some 50 times for each second of sound: what is done here has to be little
                if frame.layout.nb_channels != self.info.channels:  # the FIFO would read beyond the frame
                    raise DecodeError(Reason.UNSUPPORTED, "its channels change in the middle; split or convert it")
                pts, samples = frame.pts, frame.samples
                if last is None:
                    clock.start(pts)
                frame.pts = None
                fifo.write(frame)
                last = frame
                held += samples
                if held >= BLOCK_FRAMES + samples:  # the last frame stays, as it may be cut
                    if self._format in _OGG:
                        clock.check(pts, total + held - samples, self.info.sample_rate)
                    while held >= BLOCK_FRAMES + samples:
                        held -= BLOCK_FRAMES
                        total += BLOCK_FRAMES
                        yield self._read(fifo, BLOCK_FRAMES)
            if self._format in _OGG:
                clock.check(pts, total + held - samples, self.info.sample_rate)
        except ValueError:
            what = "its sample rate or type changes in the middle; split or convert it"
            fault = DecodeError(Reason.UNSUPPORTED, what)
        except DecodeError as error:
            fault = error
        held -= self._padding(last) if last else 0
        while held > 0:
            yield self._read(fifo, min(held, BLOCK_FRAMES))
            held -= BLOCK_FRAMES
        if fault:  # after the audio before it, so that no other decoder is tried
            raise fault

    def close(self) -> None:
        self._container.close()

    def _read(self, fifo: AudioFifo, count: int) -> NDArray[np.float32]:
        frame = cast("AudioFrame", fifo.read(count))
        channels = self.info.channels
        out = np.empty((channels, count), np.float32)
        dtype = np.dtype(_DTYPES[frame.format.name.removesuffix("p")])
        planes = cast(tuple[bytes, ...], frame.planes)  # they have the buffer protocol
        if frame.format.is_planar:
            for row, plane in zip(out, planes, strict=True):
                to_float(np.frombuffer(plane, dtype, count), row)
        else:
            to_float(np.frombuffer(planes[0], dtype, count * channels).reshape(count, channels).T, out)
        return out

    def _first_track(self) -> AudioStream:
        if not self._container.streams.audio:
            raise DecodeError(Reason.NOT_AUDIO, "it has no audio track; remove it from the source")
        stream = self._container.streams.audio[0]
        context: Any = stream.codec_context
        if context is None:
            raise DecodeError(Reason.UNSUPPORTED, "no decoder knows its audio track's codec; convert it")
        if not stream.rate or stream.format is None:
            raise self._broken("its audio track tells no sample rate or sample type")
        check_shape(stream.rate, stream.channels)
        context.thread_type = "NONE"
        context.thread_count = 1
        if stream.codec.canonical_name == "flac":
            context.options = {"err_detect": "crccheck+explode"}
        return stream

    def _describe(self, source: Source) -> AudioInfo:
        stream = self._stream
        codec = stream.codec.canonical_name.removesuffix("le").removesuffix("be")
        return AudioInfo(
            sample_rate=stream.rate,
            channels=stream.channels,
            frames=self._declared(source),
            codec=codec,
            container=source.format or "unknown",
            layout=None if _positions(stream.layout) is None else stream.layout.name,
        )

    def _declared(self, source: Source) -> int | None:
        stream, container = self._stream, self._container
        if source.format == "matroska":  # its duration is the longest track's
            known = container.duration if len(container.streams) == 1 else None
            seconds = Fraction(known, self._av.time_base) if known else None
        elif source.format in _DECLARING and source.declares_frames and stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        else:
            seconds = None
        return math.floor(seconds * stream.rate) if seconds and seconds > 0 else None

    def _frames(self) -> Iterator[AudioFrame]:
        """Decodes packet by packet. A broken packet is an error once audio came before AND after it:

        files cut out of a stream begin in mid-frame, and tags that no parser knows end many an mp3 file.
        """
        broken: Exception | None = None
        started = False
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except self._av.FFmpegError as error:
                    broken = error
                    continue
                for frame in frames:
                    if started and broken:
                        raise self._error(broken, "a part in the middle cannot be decoded")
                    if not started:
                        self._adopt(frame)
                        started, broken = True, None
                    yield frame
        except self._av.FFmpegError as error:
            raise self._error(error, "it cannot be read to its end") from error
        if broken and not started:
            raise self._error(broken, "no part of it can be decoded")

    def _padding(self, frame: AudioFrame) -> int:
        """Samples of an mp4 file's last frame that its table of durations cuts off: the encoder's padding."""
        if self._format != "mp4" or not frame.duration or not frame.time_base:
            return 0
        return max(0, frame.samples - math.ceil(frame.duration * frame.time_base * frame.sample_rate))

    def _adopt(self, frame: AudioFrame) -> None:
        """Takes the shape of the first frame: an HE-AAC header may say half the rate that comes out."""
        check_shape(frame.sample_rate, frame.layout.nb_channels)
        self.positions = _positions(frame.layout)
        self.is_bounded = frame.format.name[:3] not in ("flt", "dbl")
        rate, old = frame.sample_rate, self.info
        self.info = AudioInfo(
            sample_rate=rate,
            channels=frame.layout.nb_channels,
            frames=old.frames and old.frames * rate // old.sample_rate,
            codec=old.codec,
            container=old.container,
            layout=None if self.positions is None else frame.layout.name,
        )

    def _error(self, error: Exception, detail: str) -> DecodeError:
        # Even a MemoryError or PermissionError: a size or another file that a damaged header names.
        return self._broken(f"{detail} ({getattr(error, 'strerror', None) or error})")

    def _broken(self, what: str) -> DecodeError:
        fault = broken_file(what)
        return fault if self._format else DecodeError(Reason.NOT_AUDIO, fault.detail)


class _Clock:
    """Finds lost Ogg pages: the demuxer drops those with a wrong checksum without an error."""

    _first = 0

    def start(self, pts: int | None) -> None:
        """Takes the first frame's time stamp, whose unit in Ogg audio is a sample."""
        self._first = pts or 0

    def check(self, pts: int | None, samples: int, rate: int) -> None:
        """Compares a later frame's time stamp with the samples before it."""
        lost = 0 if pts is None else (pts - self._first - samples) / rate
        if lost > _LOST_SECONDS:
            raise broken_file(f"{lost:.2f} s are missing in the middle")


def _positions(layout: AudioLayout) -> tuple[str, ...] | None:
    if layout.name.endswith("channels"):  # FFmpeg's name for an unknown order
        return None
    return tuple(channel.name for channel in layout.channels)
