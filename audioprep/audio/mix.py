"""Changes the number of channels: ITU-R BS.775-3 down-mix, mono to stereo."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends.base import DecodeError
from audioprep.errors import Reason

_HALF = math.sqrt(0.5)  # -3 dB

# What a loudspeaker gives to left and right. LFE is dropped (BS.775-3, annex 4). Positions beyond BS.775
# (heights, wide) are treated as the speaker below or beside them.
_GAINS = {
    **dict.fromkeys(("FL", "DL", "WL", "FLC"), (1.0, 0.0)),
    **dict.fromkeys(("FR", "DR", "WR", "FRC"), (0.0, 1.0)),
    **dict.fromkeys(("FC",), (_HALF, _HALF)),
    **dict.fromkeys(("BL", "SL", "TFL", "TBL", "TSL"), (_HALF, 0.0)),
    **dict.fromkeys(("BR", "SR", "TFR", "TBR", "TSR"), (0.0, _HALF)),
    **dict.fromkeys(("BC", "TC", "TFC", "TBC"), (0.5, 0.5)),
    **dict.fromkeys(("LFE", "LFE2"), (0.0, 0.0)),
}
# For files that name no order: that of Microsoft's WAVE_FORMAT_EXTENSIBLE.
_DEFAULT_POSITIONS = {
    1: "FC",
    2: "FL FR",
    3: "FL FR FC",
    4: "FL FR BL BR",
    5: "FL FR FC BL BR",
    6: "FL FR FC LFE BL BR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}


def mix_matrix(positions: tuple[str, ...] | None, channels: int, wanted: int) -> NDArray[np.float32] | None:
    """The gains `[wanted, channels]` that make `wanted` channels of `channels`; None to leave them alone.

    Each row's gains sum to at most 1, so the result cannot clip. Stereo to mono is the mean; mono is
    duplicated; more than two channels are mixed after ITU-R BS.775, and mono is the mean of that stereo.

    Args:
        positions: the file's channel names in order, or None for the wav order.

    Raises:
        DecodeError: UNSUPPORTED, where no standard says how.
    """
    if wanted == channels:
        return None
    if channels == 1:
        return np.ones((wanted, 1), np.float32)
    names = positions or tuple(_DEFAULT_POSITIONS.get(channels, "").split())
    gains = np.array([_GAINS.get(name, (np.nan, np.nan)) for name in names]).T
    if wanted > 2 or gains.size == 0 or np.isnan(gains).any() or not gains.any():
        order = " ".join(names) or "no order"
        detail = f"no standard says how to make {wanted} channels of its {channels} ({order})"
        raise DecodeError(Reason.UNSUPPORTED, f"{detail}; convert it, or ask for 1 or 2 channels")
    if wanted == 1:
        gains = gains.sum(axis=0, keepdims=True)
    return (gains / gains.sum(axis=1).max()).astype(np.float32)


def apply_mix(matrix: NDArray[np.float32], block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mixes a block `[C, T]` to `[wanted, T]`. A product by hand: BLAS adds in an order that depends on T."""
    out = np.empty((matrix.shape[0], block.shape[1]), np.float32)
    term = np.empty(block.shape[1], np.float32)
    for row, gains in zip(out, matrix, strict=True):
        used = np.flatnonzero(gains)
        row.fill(0)
        for channel in used:
            np.multiply(block[channel], gains[channel], out=term)
            row += term
    return out
