"""Brings an autoencoder's tensors, as others name and store them, to what `audioprep.encoders.oobleck` is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from audioprep.encoders.checkpoints import load_tensors
from audioprep.encoders.vae_config import VaeConfig
from audioprep.errors import UsageError

_PREFIXES = (
    "",  # the autoencoder alone, exported
    "pretransform.model.",  # a whole model, exported
    "autoencoder_ema.ema_model.",  # in training: what an export would hold
    "autoencoder.",
    "diffusion.pretransform.model.",
)
_WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
_DIFFUSERS = re.compile(r"(?:block\.(\d+)\.)?(?:res_unit([123])\.)?(\w+)\.(\w+)")
_EPSILON = 1e-9  # that upstream's Snake adds to beta


def load_part(path: Path, config: VaeConfig, part: Literal["encoder", "decoder"]) -> dict[str, Tensor]:
    """The tensors of the encoder or decoder, float32, by their names in `oobleck`.

    Raises:
        UsageError: the checkpoint cannot be read, or has no such part.
    """
    content = load_tensors(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    found = _under_prefix(content, part) if isinstance(content, dict) else {}
    if not found:
        raise UsageError(f"{path}: holds no {part} of an autoencoder (no tensors named {part}.…); give other weights")
    tensors = {}
    for key, tensor in found.items():
        for new, old in _WEIGHT_NORM.items():
            key = key.replace(new, old)
        if config.layout == "diffusers":
            key = _from_diffusers(key, part, len(config.encoder.strides))
        else:
            key = _from_stable_audio_tools(key)
        tensors[key] = tensor.float()
    return dict(_plain(tensors))


def _under_prefix(content: dict[str, Any], part: str) -> dict[str, Tensor]:
    for prefix in (f"{prefix}{part}." for prefix in _PREFIXES):
        found = {
            key.removeprefix(prefix): value
            for key, value in content.items()
            if str(key).startswith(prefix) and isinstance(value, Tensor)
        }
        if found:
            return found
    return {}


def _from_stable_audio_tools(key: str) -> str:
    """`layers.1.layers.0.layers.1.bias` → `1.0.1.bias`."""
    return key.replace("layers.", "")


def _from_diffusers(key: str, part: str, levels: int) -> str:
    """`block.0.res_unit1.conv1.bias` → `1.0.1.bias` of an encoder, `1.2.1.bias` of a decoder."""
    match = _DIFFUSERS.fullmatch(key)
    if match is None:
        return key
    block, unit, layer, tensor = match.groups()
    if unit:
        places = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    elif block:
        places = {"snake1": 3, "conv1": 4} if part == "encoder" else {"snake1": 0, "conv_t1": 1}
    else:
        places = {"conv1": 0, "snake1": levels + 1, "conv2": levels + 2}
    if layer not in places:
        return key
    path = [str(int(block) + 1)] if block else []
    if unit:
        path.append(str(int(unit) - 1 if part == "encoder" else int(unit) + 1))
    return ".".join([*path, str(places[layer]), tensor])


def _plain(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Multiplies weight normalization out, and takes Snake's parameters out of their logarithms."""
    for key, tensor in tensors.items():
        layer, _, kind = key.rpartition(".")
        if kind == "weight_v" and f"{layer}.weight_g" in tensors:
            norm = torch.linalg.vector_norm(tensor, dim=(1, 2), keepdim=True)
            yield f"{layer}.weight", tensor * (tensors[f"{layer}.weight_g"] / norm)
        elif kind == "weight_g" and f"{layer}.weight_v" in tensors:
            continue
        elif kind == "alpha":
            yield key, tensor.exp().reshape(-1, 1)
        elif kind == "beta":
            yield f"{layer}.gain", (tensor.exp() + _EPSILON).rsqrt().reshape(-1, 1)
        else:
            yield key, tensor
