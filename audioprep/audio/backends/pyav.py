"""PyAV: FFmpeg's libraries in process. Opens nearly everything, and tells what is in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends.base import BLOCK_FRAMES, AudioInfo, DecodeError, check_shape, to_float
from audioprep.audio.source import Source
from audioprep.errors import Reason

if TYPE_CHECKING:
    import av

NAME = "pyav"

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
_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


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
            self._container: av.container.InputContainer = self._av.open(
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
        count = 0
        for frame in self._frames():
            frame.pts = None
            fifo.write(frame)
            count += frame.samples
            while count >= BLOCK_FRAMES:
                count -= BLOCK_FRAMES
                yield _samples(fifo.read(BLOCK_FRAMES))
        if count:
            yield _samples(fifo.read(count))

    def close(self) -> None:
        self._container.close()

    def _first_track(self) -> av.audio.stream.AudioStream:
        if not self._container.streams.audio:
            raise DecodeError(Reason.NOT_AUDIO, "it has no audio track; remove it from the source")
        stream = self._container.streams.audio[0]
        context: Any = stream.codec_context
        if context is None or not stream.rate or stream.format is None:
            raise DecodeError(Reason.UNSUPPORTED, "no decoder knows its audio track's codec; convert it")
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
            is_alone = len(container.streams) == 1
            seconds = Fraction(container.duration, self._av.time_base) if is_alone and container.duration else None
        elif source.format in _DECLARING and source.declares_frames and stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        else:
            seconds = None
        return math.floor(seconds * stream.rate) if seconds and seconds > 0 else None

    def _frames(self) -> Iterator[av.AudioFrame]:
        """Decodes packet by packet. A broken packet is an error once audio came before AND after it:

        files cut out of a stream begin in mid-frame, and tags that no parser knows end many an mp3 file.
        """
        first: av.AudioFrame | None = None
        broken: Exception | None = None
        clock: int | None = None
        for packet in self._packets():
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                broken = error
                continue
            for frame in frames:
                if not frame.samples:
                    continue
                if first is None:
                    first = frame
                    self._adopt(frame)
                elif broken:
                    raise self._error(broken, "a part in the middle cannot be decoded")
                elif (frame.sample_rate, frame.layout.nb_channels, frame.format.name) != self._shape:
                    detail = "the sample rate, the channels or the sample type change within it"
                    raise DecodeError(Reason.UNSUPPORTED, f"{detail}; split or convert it")
                clock = self._check_clock(frame, clock)
                yield frame
        if first is None and broken:
            raise self._error(broken, "no part of it can be decoded")

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except self._av.FFmpegError as error:
            raise self._error(error, "it cannot be read to its end") from error

    def _adopt(self, frame: av.AudioFrame) -> None:
        """Takes the shape of the first frame: an HE-AAC header may say half the rate that comes out."""
        self._shape = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
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

    def _check_clock(self, frame: av.AudioFrame, clock: int | None) -> int | None:
        """Finds lost Ogg pages: the demuxer drops those with a wrong checksum without an error."""
        if self._format not in _OGG or frame.pts is None or frame.time_base is None:
            return None
        start = round(frame.pts * frame.time_base * frame.sample_rate)
        lost = 0 if clock is None else (start - clock) / frame.sample_rate
        if lost > _LOST_SECONDS:
            raise DecodeError(Reason.CORRUPT, f"{lost:.2f} s are missing in the middle; fetch it again or remove it")
        return start + frame.samples

    def _error(self, error: Exception, detail: str) -> Exception:
        if isinstance(error, (MemoryError, self._av.error.PermissionError)):
            return error
        reason = Reason.CORRUPT if self._format else Reason.NOT_AUDIO
        what = getattr(error, "strerror", None) or str(error)
        return DecodeError(reason, f"{detail} ({what}); fetch it again or remove it")


def _positions(layout: av.AudioLayout) -> tuple[str, ...] | None:
    if layout.name.endswith("channels"):  # FFmpeg's name for an unknown order
        return None
    return tuple(channel.name for channel in layout.channels)


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    channels, count = frame.layout.nb_channels, frame.samples
    out = np.empty((channels, count), np.float32)
    dtype = _DTYPES[frame.format.name.removesuffix("p")]
    if frame.format.is_planar:
        for row, plane in zip(out, frame.planes, strict=True):
            to_float(np.frombuffer(plane, dtype, count), row)
    else:
        to_float(np.frombuffer(frame.planes[0], dtype, count * channels).reshape(count, channels).T, out)
    return out
