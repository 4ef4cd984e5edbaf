"""Cuts a stream of samples into the windows of one length that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from audioprep.encoders.base import EncoderSpec


def cut_windows(blocks: Iterable[NDArray[np.float32]], spec: EncoderSpec) -> Iterator[NDArray[np.float32]]:
    """Gives windows that follow each other without a gap, each with its context on both sides.

    Args:
        blocks: float32 `[C, T]`, `T` of any length.
        spec: says the lengths of window and context.

    Yields:
        float32 `[C, context + window + context]`. What lies before the first sample and after the last one is
        zero. There are `ceil(samples / window)` windows; the last one is filled up with zeros.
    """
    context, window = spec.context, spec.window
    length = context + window + context
    buffer = np.zeros((spec.channels, length), np.float32)
    filled = context  # the first window's left context lies before the file
    for block in blocks:
        taken = 0
        while taken < block.shape[1]:
            count = min(length - filled, block.shape[1] - taken)
            buffer[:, filled : filled + count] = block[:, taken : taken + count]
            filled += count
            taken += count
            if filled == length:
                yield buffer.copy()
                buffer[:, : 2 * context] = buffer[:, window:]
                filled = 2 * context
    while filled > context:
        buffer[:, filled:] = 0
        yield buffer.copy()
        buffer[:, : 2 * context] = buffer[:, window:]
        filled -= window
