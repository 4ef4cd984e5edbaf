"""How far the convolutions of DAC reach, and those of Oobleck, which took them over.

From the audio to the latents, each level has three residual units and a convolution with a kernel of two strides;
before the first level a kernel of 7, after the last one of 3. The way back mirrors it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RESIDUAL_REACH = 3 * (1 + 3 + 9)  # samples on either side: three kernels of 7, dilated by 1, 3 and 9


def encoder_reach(strides: Sequence[int]) -> tuple[int, int]:
    """Samples before a frame's first one, and after its last one, that the frame depends on.

    Args:
        strides: of each level, the one at the audio's rate first.
    """
    left = right = 1  # of the last convolution, in frames
    for stride in reversed(strides):
        padding = math.ceil(stride / 2)
        left = left * stride + padding + RESIDUAL_REACH
        right = right * stride + 2 * stride - 1 - padding + RESIDUAL_REACH
    return left + 3, right + 3 - (math.prod(strides) - 1)


def decoder_reach(strides: Sequence[int]) -> int:
    """Frames on either side that a frame's samples depend on, or one more; `strides` as for the encoder."""
    reach, rate = 4.0, 1
    for stride in reversed(strides):
        reach += 2 / rate + RESIDUAL_REACH / (rate * stride)
        rate *= stride
    return math.ceil(reach)
