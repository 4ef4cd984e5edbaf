"""Splits items into train, validation and so on: by the hash of their content, so that it never changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from audioprep.errors import UsageError

_NAME = re.compile(r"\w+")


def parse_splits(text: str) -> dict[str, float]:
    """Reads `train=0.9,validation=0.1`.

    Raises:
        UsageError: not of this form, or the shares do not add up to 1.
    """
    splits: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            splits[name] = float(share)
        except ValueError as error:
            raise UsageError(f"--splits {text}: write it like train=0.95,validation=0.05") from error
    return check_splits(splits)


def check_splits(splits: dict[str, float]) -> dict[str, float]:
    """Gives `splits` back if they are usable.

    Raises:
        UsageError: a bad name, a negative share, or shares that do not add up to 1.
    """
    for name, share in splits.items():
        if not _NAME.fullmatch(name) or share < 0:
            raise UsageError(f"split {name}={share}: names are letters and digits, shares are not negative")
    if abs(sum(splits.values()) - 1) > 1e-9:
        raise UsageError(f"the splits' shares add up to {sum(splits.values()):g}, not to 1")
    return splits


def choose_split(item_id: str, wanted: str | None, splits: Mapping[str, float]) -> str:
    """The split of one item: what its manifest says, else by its id.

    The id is a hash of the content, so adding files moves no other, and exact copies never fall into
    different splits.

    Raises:
        UsageError: the manifest's name for the split cannot be part of a file name.
    """
    if wanted:
        if not _NAME.fullmatch(wanted):
            raise UsageError(f"split {wanted!r}: use letters and digits only, as in train or validation")
        return wanted
    place = int(item_id[:16], 16) / 2**64
    for name, share in splits.items():
        if place < share:
            return name
        place -= share
    return list(splits)[-1]  # rounding at the very end


def split_of(group: str, splits: Mapping[str, float], seed: int = 0) -> str:
    """The split of all items of one group, such as the parts of a song: by the hash of its name, with a seed."""
    return choose_split(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest(), None, splits)
