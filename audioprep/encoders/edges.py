"""Lets a stack of convolutions see the ends of a file where they are within a window of fixed length.

At a file's ends a model pads every layer's input with zeros. Silence before and after the file is not the same: the
biases of the first layer already turn it into something else. So each convolution's input is set to zero outside
the file, and then a window of any position gives what the whole file would have given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Now(threading.local):
    """What a thread's batch needs: on a GPU, two threads are in one model at once."""

    def __init__(self) -> None:
        self.valid: Tensor | None = None
        self.length = 0
        self.masks: dict[int, Tensor] = {}


class EdgeMask:
    """Masks the inputs of all padded one-dimensional convolutions of a model.

    Each layer's resolution must divide the window's length, and the file's start must lie on a whole frame of the
    last layer: so `left_context` is a multiple of the hop.

    Args:
        model: convolutions that pad with zeros, and what works on each time step alone.
        hop_length: samples of a frame; a file's end counts as rounded up to it.
    """

    def __init__(self, model: nn.Module, hop_length: int) -> None:
        self._hop = hop_length
        self._now = _Now()
        for module in model.modules():
            if isinstance(module, nn.Conv1d) and any(module.padding):  # pyright: ignore[reportArgumentType]
                module.register_forward_pre_hook(self._mask)

    @contextmanager
    def at(self, valid: Tensor, length: int) -> Iterator[None]:
        """Within it, the model is applied to windows of `length` samples whose own ones are `valid` `[B, 2]`."""
        # A batch from the middle of files needs no mask; nor does it matter what fills a batch.
        whole = ((valid[:, 0] == 0) & (valid[:, 1] == length)) | (valid[:, 1] == 0)
        if not whole.all():
            start, end = valid[:, :1], -(-valid[:, 1:] // self._hop) * self._hop
            self._now.valid, self._now.length = torch.cat([start, end], 1), length
        try:
            yield
        finally:
            self._now.valid = None
            self._now.masks.clear()

    def _mask(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        now = self._now
        if now.valid is None:
            return None
        layer = inputs[0]
        frames = layer.shape[-1]
        if frames not in now.masks:
            start, end = (now.valid * frames // now.length).split(1, dim=1)
            place = torch.arange(frames, device=layer.device)
            now.masks[frames] = ((place < start) | (place >= end))[:, None]
        # In place: what lies outside the file is of no use to anyone.
        return (layer.masked_fill_(now.masks[frames], 0.0), *inputs[1:])
