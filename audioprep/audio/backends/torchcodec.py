"""torchcodec: the system's FFmpeg libraries. Used where torch is loaded already; it fits one version of torch only."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends import pyav
from audioprep.audio.backends.base import BLOCK_FRAMES, DecodeError, broken_file
from audioprep.audio.source import Source
from audioprep.errors import Reason

# A range that begins within a frame makes torchcodec decode from the start of the file again, so the whole
# file is taken at once, and longer files are left to the others to keep memory bounded.
_MAX_SECONDS = 1200.0


@cache
def _decoder_class() -> Any:
    """The decoder class; asked once, since a failing load takes seconds.

    Raises:
        ImportError: torch or torchcodec is missing, or finds no FFmpeg libraries.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchcodec.decoders import AudioDecoder
        except (RuntimeError, OSError) as error:
            raise ImportError(str(error).strip().splitlines()[0]) from error
    return AudioDecoder


def version() -> str:
    _decoder_class()
    import torchcodec

    return torchcodec.__version__


def open(source: Source) -> TorchcodecDecoder:
    return TorchcodecDecoder(source)


class TorchcodecDecoder:
    """A file of at most 20 minutes, decoded whole."""

    def __init__(self, source: Source) -> None:
        if "torch" not in sys.modules:
            raise ImportError(
                "torch is not loaded, and loading it takes seconds, for each broken file of an isolated run"
            )
        header = pyav.open(source)
        header.close()
        self.info, self.positions, self.is_bounded = header.info, header.positions, False
        duration = self.info.duration
        if duration is None or duration > _MAX_SECONDS:
            detail = f"torchcodec takes only tracks that declare at most {_MAX_SECONDS:g} s; convert it"
            raise DecodeError(Reason.UNSUPPORTED, detail)
        try:
            self._decoder = _decoder_class()(source.path)
        except (RuntimeError, ValueError) as error:
            raise _error(error) from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        try:
            samples = self._decoder.get_samples_played_in_range(0.0, _MAX_SECONDS).data.numpy()
        except (RuntimeError, ValueError) as error:
            raise _error(error) from error
        for start in range(0, samples.shape[1], BLOCK_FRAMES):
            yield np.array(samples[:, start : start + BLOCK_FRAMES], np.float32, order="C")

    def close(self) -> None:
        del self._decoder


def _error(error: Exception) -> DecodeError:
    what = str(error).strip().splitlines()[0]
    return broken_file(f"it cannot be decoded ({what})")
