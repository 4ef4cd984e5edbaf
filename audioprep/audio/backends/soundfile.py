"""soundfile: libsndfile, the fastest for PCM in wav, aiff, w64 and rf64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

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
from audioprep.audio.chunks import declared_bytes
from audioprep.audio.source import Source
from audioprep.errors import Reason

_Read = Literal["int16", "int32", "float32", "float64"]
# libsndfile's name of a sample type: FFmpeg's name of it, the type to read it as, its bytes a sample.
_SUBTYPES: dict[str, tuple[str, _Read, int]] = {
    "PCM_U8": ("pcm_u8", "int16", 1),
    "PCM_S8": ("pcm_s8", "int16", 1),
    "PCM_16": ("pcm_s16", "int16", 2),
    "PCM_24": ("pcm_s24", "int32", 3),
    "PCM_32": ("pcm_s32", "int32", 4),
    "FLOAT": ("pcm_f32", "float32", 4),
    "DOUBLE": ("pcm_f64", "float64", 8),
    "ULAW": ("pcm_mulaw", "int16", 1),
    "ALAW": ("pcm_alaw", "int16", 1),
}


def version() -> str:
    import soundfile

    return f"{soundfile.__version__} (libsndfile {soundfile.__libsndfile_version__})"


def open(source: Source) -> SoundfileDecoder:
    return SoundfileDecoder(source)


class SoundfileDecoder:
    """A mono or stereo file; libsndfile's binding tells no channel order, so more channels go elsewhere."""

    _dtype: _Read

    def __init__(self, source: Source) -> None:
        import soundfile

        self._library_error = soundfile.LibsndfileError
        try:
            self._file = soundfile.SoundFile(source.path)
        except soundfile.LibsndfileError as error:
            raise broken_file(f"its header cannot be read ({error.error_string})") from error
        try:
            self.info = self._describe(source)
        except BaseException:
            self.close()
            raise
        self.positions = None
        self.is_bounded = not self._dtype.startswith("float")

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        buffer = np.empty((BLOCK_FRAMES, self.info.channels), self._dtype)
        while count := self._read(buffer):
            block = np.empty((self.info.channels, count), np.float32)
            to_float(buffer[:count].T, block)
            yield block

    def close(self) -> None:
        self._file.close()

    def _read(self, buffer: NDArray[np.generic]) -> int:
        try:
            return self._file.buffer_read_into(buffer, self._dtype)
        except self._library_error as error:
            raise broken_file(f"it cannot be decoded to its end ({error.error_string})") from error

    def _describe(self, source: Source) -> AudioInfo:
        file = self._file
        check_shape(file.samplerate, file.channels)
        if file.subtype not in _SUBTYPES:
            raise DecodeError(Reason.UNSUPPORTED, f"{file.subtype} is left to FFmpeg; convert it")
        if file.channels > 2:
            raise DecodeError(Reason.UNSUPPORTED, "the order of its channels is unknown; convert it")
        codec, self._dtype, size = _SUBTYPES[file.subtype]
        declared = declared_bytes(source)
        frames = None if declared is None else declared // (size * file.channels)
        layout = "stereo" if file.channels == 2 else "mono"
        return AudioInfo(file.samplerate, file.channels, frames, codec, source.format or "unknown", layout)
