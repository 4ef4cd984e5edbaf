"""Which device an encoder or trainer runs on, decided without importing torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from audioprep.errors import UsageError

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
"""How a setting may name a device."""


def resolve_device(device: str) -> str:
    """Turns the setting `auto` into `cuda` or `cpu`; `cpu`, `cuda` and `cuda:N` stay what they are.

    The driver's device files answer instead of torch: importing torch takes seconds, and asking it starts
    CUDA, after which a process can no longer be forked.

    Raises:
        UsageError: there is no such device.
    """
    if not re.fullmatch(DEVICE, device):
        raise UsageError(f"device {device}: there is auto, cpu, cuda and cuda:N")
    if device != "auto":
        return device
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return "cuda" if not hidden and any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


def device_class(device: str) -> str:
    """`cuda` for `cuda:1`: what decides about rounding is the kind of device, not its number."""
    return resolve_device(device).partition(":")[0]
