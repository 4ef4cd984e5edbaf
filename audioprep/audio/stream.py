"""Opens a file as a stream of sample blocks: decode, check, mix, resample, clip."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from audioprep.audio import backends
from audioprep.audio.backends.base import MAX_CHANNELS, MAX_RATE, MIN_RATE, AudioInfo, DecodeError, Decoder
from audioprep.audio.mix import apply_mix, mix_matrix
from audioprep.audio.resample import Resampler
from audioprep.audio.source import Source, inspect, raise_os_error
from audioprep.errors import InputError, Reason, SystemFault, UsageError

T = TypeVar("T")
Blocks = Iterator[NDArray[np.float32]]

# By how much less than declared a file may give. Codecs count priming and padding in; PCM and FLAC do not.
_EXACT_CODECS = {"flac", "alac", "wavpack", "tta"}
_EXACT_TOLERANCE = 0.02
_TOLERANCE, _RELATIVE_TOLERANCE = 0.25, 0.001
_MAX_SAMPLES_A_BYTE = 256  # no header's claim beyond this is believed when memory is taken


class AudioStream:
    """An opened recording. Iterate once for its blocks, float32 `[C, T]`, contiguous, in [-1, 1]; `T` varies.

    Use it as a context manager: leaving it stops the decoder, wherever it is.

    Attributes:
        info: what the file holds, before mixing and resampling.
        sample_rate: Hz of the blocks.
        channels: channels of the blocks.
    """

    def __init__(
        self, info: AudioInfo, sample_rate: int, channels: int, blocks: Blocks, close: Callable[[], None]
    ) -> None:
        self.info = info
        self.sample_rate = sample_rate
        self.channels = channels
        self._blocks = blocks
        self._close = close

    def __iter__(self) -> Blocks:
        return self._blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the decoder and frees what it holds; may be called again."""
        self._close()


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """What the file's header says, without decoding it.

    Raises:
        InputError: the file cannot be read or holds no audio.
        SystemFault: the machine is at fault.
    """
    source = inspect(path)
    with _faults(source):
        decoder, _ = _first_that_works(source, lambda decoder: None)
        decoder.close()
        return decoder.info


def open_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    isolated: bool = False,
    timeout: float | None = None,
) -> AudioStream:
    """Opens a file of any known format; the first bytes tell which, not the name.

    Memory does not grow with the file's length. Samples beyond [-1, 1] (lossy codecs and resampling
    overshoot, float files may hold anything) are clipped, as the last step.

    The backends of `backends.order` are tried one after the other until one gives its first block; from then
    on its errors are final, so that no recording is ever put together from two decoders. When none works, the
    first one's error is raised.

    Args:
        path: a local file.
        sample_rate: Hz to resample to (after the down-mix); None keeps the file's. n samples become
            ceil(n * out / in).
        channels: None keeps the file's; 1 and 2 can be made of all layouts (`mix.mix_matrix`).
        isolated: decode in a child process, which may crash or hang without harm.
        timeout: seconds that an isolated decoder may take for one block (and for opening).

    Raises:
        InputError: here or while iterating. Reasons: NOT_FOUND, NO_PERMISSION, NOT_A_FILE, EMPTY, UNREADABLE;
            NOT_AUDIO; UNSUPPORTED; NO_SAMPLES; CORRUPT (a decoder's error with audio on both sides of it);
            TRUNCATED (fewer samples than declared: by over 0.02 s for lossless codecs, by over 0.25 s and
            0.1% for others); NON_FINITE; and isolated CRASHED and TIMEOUT.
        SystemFault: the machine is at fault (memory, file descriptors, a full disk).
        UsageError: an argument is out of range.
    """
    _check_arguments(sample_rate, channels, isolated, timeout)
    if isolated:
        from audioprep.audio.isolated import open_isolated

        return open_isolated(path, sample_rate, channels, timeout)
    return _open(path, sample_rate, channels)


def load_audio(
    path: str | os.PathLike[str], *, sample_rate: int | None = None, channels: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """The whole file at once: its samples float32 `[C, T]`, contiguous, and their rate in Hz.

    Arguments and errors are those of `open_audio`.
    """
    _check_arguments(sample_rate, channels, False, None)
    with _open(path, sample_rate, channels) as stream:
        declared = min(stream.info.frames or 0, os.path.getsize(path) * _MAX_SAMPLES_A_BYTE)
        width = math.ceil(declared * stream.sample_rate / stream.info.sample_rate)
        samples = np.empty((stream.channels, width), np.float32)
        end = 0
        for block in stream:
            start, end = end, end + block.shape[1]
            if end > samples.shape[1]:
                grown = np.empty((stream.channels, max(end, 2 * start)), np.float32)
                grown[:, :start] = samples[:, :start]
                samples = grown
            samples[:, start:end] = block
    return _shortened(samples, end), stream.sample_rate


def _check_arguments(sample_rate: int | None, channels: int | None, isolated: bool, timeout: float | None) -> None:
    if sample_rate is not None and not MIN_RATE <= sample_rate <= MAX_RATE:
        raise UsageError(f"sample_rate {sample_rate}: give {MIN_RATE} to {MAX_RATE} Hz")
    if channels is not None and not 1 <= channels <= MAX_CHANNELS:
        raise UsageError(f"channels {channels}: give 1 to {MAX_CHANNELS}")
    if timeout is not None and not (isolated and timeout > 0):
        raise UsageError(f"timeout {timeout}: give a positive number of seconds, together with isolated=True")


def _open(path: str | os.PathLike[str], sample_rate: int | None, channels: int | None) -> AudioStream:
    """Opens the file in this process."""
    source = inspect(path)
    with _faults(source):
        decoder, blocks = _first_that_works(source, _begin)
        try:
            info = decoder.info
            rate, count = sample_rate or info.sample_rate, channels or info.channels
            matrix = mix_matrix(decoder.positions, info.channels, count)
        except BaseException:
            decoder.close()
            raise
    resampler = None if rate == info.sample_rate else Resampler(info.sample_rate, rate, count)
    is_final = matrix is None and resampler is None
    blocks = _checked(blocks, decoder, clip=is_final)
    if not is_final:
        blocks = _clipped(_converted(blocks, matrix, resampler))
    return AudioStream(info, rate, count, _guarded(blocks, source, decoder), decoder.close)


def _first_that_works(source: Source, start: Callable[[Decoder], T]) -> tuple[Decoder, T]:
    """Opens the file with the first backend on which `start` succeeds."""
    failure: DecodeError | None = None
    for name in backends.order(source.format):
        try:
            decoder = backends.load(name).open(source)
        except DecodeError as error:
            failure = failure or error
            continue
        except ImportError:
            continue
        try:
            return decoder, start(decoder)
        except DecodeError as error:
            decoder.close()
            failure = failure or error
        except BaseException:
            decoder.close()
            raise
    raise failure or DecodeError(Reason.UNSUPPORTED, "no decoder is installed for it; see `audioprep doctor`")


def _begin(decoder: Decoder) -> Blocks:
    """Decodes the first block, so that a decoder which cannot is found while another may take over."""
    blocks = decoder.blocks()
    return chain([block] if (block := next(blocks, None)) is not None else [], blocks)


@contextmanager
def _faults(source: Source) -> Iterator[None]:
    """Turns what decoders raise into InputError or SystemFault."""
    try:
        yield
    except DecodeError as error:
        raise InputError(error.reason, source.uri, error.detail) from error
    except MemoryError as error:
        detail = "memory ran out while decoding; use fewer workers or smaller blocks"
        raise SystemFault(f"{source.uri}: {detail}") from error
    except OSError as error:
        raise_os_error(error, source.uri)


def _guarded(blocks: Blocks, source: Source, decoder: Decoder) -> Blocks:
    try:
        with _faults(source):
            yield from blocks
    finally:
        decoder.close()


def _checked(blocks: Blocks, decoder: Decoder, clip: bool) -> Blocks:
    """Finds NaN and infinite samples, too few samples and none."""
    count = 0
    for block in blocks:
        if not decoder.is_bounded:
            low, high = block.min(), block.max()
            if not (math.isfinite(low) and math.isfinite(high)):
                index = count + int(np.argmin(np.isfinite(block).all(axis=0)))
                detail = f"sample {index} ({index / decoder.info.sample_rate:.3f} s) is not a finite number"
                raise DecodeError(Reason.NON_FINITE, f"{detail}; mend or remove the file")
            if clip and (low < -1 or high > 1):
                np.clip(block, -1, 1, out=block)
        count += block.shape[1]
        yield block
    info = decoder.info
    exact = info.codec in _EXACT_CODECS or info.codec.startswith("pcm_")
    missing = (info.frames or 0) - count
    tolerance = _EXACT_TOLERANCE if exact else _TOLERANCE + _RELATIVE_TOLERANCE * (info.duration or 0)
    if missing > tolerance * info.sample_rate:
        detail = f"{info.duration:.3f} s are declared, {count / info.sample_rate:.3f} s are there"
        raise DecodeError(Reason.TRUNCATED, f"{detail}; fetch it again or remove it")
    if count == 0:
        raise DecodeError(Reason.NO_SAMPLES, "its audio track holds no samples; remove it from the source")


def _converted(blocks: Blocks, matrix: NDArray[np.float32] | None, resampler: Resampler | None) -> Blocks:
    for block in blocks:
        mixed = block if matrix is None else apply_mix(matrix, block)
        out = resampler.push(mixed) if resampler else mixed
        if out.shape[1]:
            yield out
    if resampler and (rest := resampler.finish()).shape[1]:
        yield rest


def _clipped(blocks: Blocks) -> Blocks:
    for block in blocks:
        if block.min() < -1 or block.max() > 1:
            np.clip(block, -1, 1, out=block)
        yield block


def _shortened(samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The first `frames` columns, contiguous; moved in place, as a copy costs a tenth of the decoding."""
    channels, width = samples.shape
    if frames < width:
        flat = samples.reshape(-1)
        for channel in range(1, channels):
            to, start = flat.ctypes.data + 4 * channel * frames, flat.ctypes.data + 4 * channel * width
            ctypes.memmove(to, start, 4 * frames)
        samples = flat[: channels * frames].reshape(channels, frames)
    return samples
