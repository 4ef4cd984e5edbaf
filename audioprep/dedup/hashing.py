"""A hash that spreads whole numbers evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fibonacci_hash(values: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Knuth, The Art of Computer Programming, volume 3, section 6.4: of the result, the high bits mix."""
    return values.astype(np.uint64) * np.uint64(11400714819323198485)
