"""What encoders built on torch share: settings, device, precision, and what happens when memory runs out."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from audioprep.encoders.base import EncoderSpec, Setting
from audioprep.encoders.device import DEVICE, device_class, resolve_device
from audioprep.errors import SystemFault

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class TorchSettings(BaseModel):
    """Settings of every encoder built on torch."""

    model_config = ConfigDict(extra="forbid")

    weights: str = Field(description="A file or folder, a URL, or a repository of the Hub: org/name[@revision].")
    device: str = Field(default="cpu", pattern=DEVICE, description="cpu, cuda, cuda:1, or auto.")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16 is faster on a GPU, and changes some of the values."
    )
    tf32: bool = Field(default=False, description="Let a GPU round factors to 10 bits: faster, and changes values.")
    compile: bool = Field(default=False, description="torch.compile: a slow start, then faster; changes some values.")
    batch_size: int | None = Field(default=None, ge=1, description="Windows in a batch. Default: by device.")


def numeric_settings(settings: TorchSettings) -> dict[str, Setting]:
    """What decides about rounding, for `EncoderSpec.settings`; does not import torch."""
    return {
        "dtype": settings.dtype,
        "tf32": settings.tf32,
        "compile": settings.compile,
        "device": device_class(settings.device),
        "torch": version("torch"),
    }


def batch_size(settings: TorchSettings, *, cpu: int, cuda: int) -> int:
    """The batch size asked for, or the device's default."""
    return settings.batch_size or (cuda if device_class(settings.device) == "cuda" else cpu)


class TorchEncoder(ABC):
    """Encodes batches on one device; a subclass builds its model on `self.device` and says what `forward` is.

    On a GPU, `encode` may be called from several threads: each has its own stream, so that one batch is copied
    while another is computed.
    """

    def __init__(self, spec: EncoderSpec, settings: TorchSettings) -> None:
        import torch

        self.spec = spec
        self.device = torch.device(resolve_device(settings.device))
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise SystemFault(f"device {settings.device}: torch cannot use CUDA here; choose the device cpu")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
        torch.backends.cudnn.benchmark = False  # it may choose another algorithm, and other rounding, in each run
        self._bfloat16 = settings.dtype == "bfloat16"
        self._run = torch.compile(self.forward, dynamic=False) if settings.compile else self.forward
        self._rows = spec.batch_size
        self._threads = threading.local()

    @abstractmethod
    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        """Encodes windows that are on the device.

        Args:
            samples: float32 `[B, C, spec.length]`.
            valid: int64 `[B, 2]`, as `Encoder.encode` takes it.

        Returns:
            `[B, F, K]` int64 (-1 where the activations are not finite), or `[B, F, D]` float.
        """

    @property
    def decoded_rate(self) -> int:
        """See `audioprep.encoders.base.Decoder`; for those that are one."""
        return self.spec.sample_rate

    @property
    def rows(self) -> int:
        """Windows that are encoded at once: `spec.batch_size`, or less since memory ran out."""
        return self._rows

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        """Encodes one batch; see `audioprep.encoders.base.Encoder`. Out of memory, it goes on with smaller ones.

        Raises:
            SystemFault: there is not enough memory for a single window.
        """
        import torch

        while True:
            rows = self._rows
            try:
                parts = [
                    self._encode(samples[first : first + rows], valid[first : first + rows])
                    for first in range(0, len(samples), rows)
                ]
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
            except torch.OutOfMemoryError as error:
                if rows == 1:
                    raise SystemFault(
                        f"{self.spec.name}: no memory on {self.device} for a single window of "
                        f"{self.spec.length / self.spec.sample_rate:.1f} s. Close what else uses it, or choose "
                        "the device cpu."
                    ) from error
                self._shrink(rows)

    def _encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        import torch

        if len(samples) < self._rows:  # a batch that does not divide: the shape stays the same
            count = len(samples)
            fill = self._rows - count
            samples = np.concatenate([samples, np.zeros((fill, *samples.shape[1:]), np.float32)])
            valid = np.concatenate([valid, np.zeros((fill, 2), np.int64)])
            return self._encode(samples, valid)[:count]
        with torch.inference_mode(), self._stream(), self._precision():
            out = self._run(self._to_device(samples), self._to_device(valid))
            # On a GPU this waits for the stream of this thread alone.
            return (out.float() if out.is_floating_point() else out).cpu().numpy()

    def _shrink(self, rows: int) -> None:
        import torch

        self._rows = min(self._rows, rows // 2)  # another thread may have been here first
        logger.warning("%s: out of memory with %d windows at once; going on with %d", self.spec.name, rows, self._rows)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        import torch

        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _stream(self) -> AbstractContextManager[Any]:
        import torch

        if self.device.type == "cpu":
            return nullcontext()
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream(self.device)
        return torch.cuda.stream(self._threads.stream)

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.device.type, torch.bfloat16) if self._bfloat16 else nullcontext()
