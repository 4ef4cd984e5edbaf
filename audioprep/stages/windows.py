"""Cuts a stream of samples into the windows of one length that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audioprep.encoders.base import EncoderSpec


class Window(NamedTuple):
    """A window with its context.

    Attributes:
        samples: float32 `[C, left_context + window + right_context]`, zero outside the file.
        start: first of the samples that is the file's own.
        end: one past the last of them.
    """

    samples: NDArray[np.float32]
    start: int
    end: int


class WindowCutter:
    """Takes a file's samples block by block and gives its windows, which follow each other without a gap.

    Args:
        spec: says how long window and context are, and how many windows a file has.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._buffer = np.zeros((spec.channels, spec.length), np.float32)
        self._filled = spec.left_context  # the first window's left context lies before the file
        self._count = 0
        self.samples = 0

    def push(self, block: NDArray[np.float32]) -> Iterator[Window]:
        """Takes float32 `[C, T]`, `T` of any length."""
        length = self._spec.length
        taken = 0
        while taken < block.shape[1]:
            count = min(length - self._filled, block.shape[1] - taken)
            self._buffer[:, self._filled : self._filled + count] = block[:, taken : taken + count]
            self._filled += count
            self.samples += count
            taken += count
            if self._filled == length:
                yield self._next()

    def finish(self) -> Iterator[Window]:
        """The windows at the file's end, filled up with zeros."""
        while self._count < self._spec.num_windows(self.samples):
            self._buffer[:, self._filled :] = 0
            yield self._next()

    def _next(self) -> Window:
        spec = self._spec
        # With a window shorter than its left context, several windows see the file's start.
        start = max(0, spec.left_context - self._count * spec.window)
        window = Window(self._buffer.copy(), start, self._filled)
        self._buffer[:, : spec.length - spec.window] = self._buffer[:, spec.window :]
        self._filled -= spec.window
        self._count += 1
        return window
