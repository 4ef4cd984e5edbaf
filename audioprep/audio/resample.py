"""Sample-rate conversion in a stream: libsoxr's HQ quality (linear phase, 20 bits)."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


class Resampler:
    """Converts blocks of one recording from `rate_in` to `rate_out` Hz.

    All blocks together give ceil(n * rate_out / rate_in) samples for n; libsoxr's last one is cut off or
    a zero is added where it rounds otherwise.
    """

    def __init__(self, rate_in: int, rate_out: int, channels: int) -> None:
        self._stream = soxr.ResampleStream(rate_in, rate_out, channels, dtype="float32", quality="HQ")
        self._rates = rate_in, rate_out
        self._channels = channels
        self._taken = self._given = 0

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes `[C, T]`, gives `[C, T2]`: what is ready by now, perhaps nothing."""
        self._taken += block.shape[1]
        out = self._process(block.T, last=False)
        self._given += out.shape[1]
        return out

    def finish(self) -> NDArray[np.float32]:
        """Gives the rest, `[C, T2]`."""
        rate_in, rate_out = self._rates
        missing = -(-self._taken * rate_out // rate_in) - self._given
        rest = self._process(np.zeros((0, self._channels), np.float32), last=True)[:, :missing]
        return np.pad(rest, ((0, 0), (0, missing - rest.shape[1])))

    def _process(self, frames: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        return np.ascontiguousarray(self._stream.resample_chunk(np.ascontiguousarray(frames), last=last).T)
