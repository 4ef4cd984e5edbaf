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
_GAIN = r"(?:weight_g|parametrizations\.weight\.original0)$"
_DIRECTION = r"(?:weight_v|parametrizations\.weight\.original1)$"
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
    levels = len(config.encoder.strides)
    rename = _from_diffusers if config.layout == "diffusers" else _from_stable_audio_tools
    named = {rename(key, part, levels): tensor.float() for key, tensor in found.items()}
    return dict(_plain(named))


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


def _from_stable_audio_tools(key: str, part: str, levels: int) -> str:
    return key.replace("layers.", "")


def _from_diffusers(key: str, part: str, levels: int) -> str:
    """`block.0.res_unit1.conv1.bias` → `1.0.1.bias`."""
    before = 0 if part == "encoder" else 2  # layers of a level in front of its residual units
    within = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    level = {"snake1": 3, "conv1": 4} if part == "encoder" else {"snake1": 0, "conv_t1": 1}
    whole = {"conv1": 0, "snake1": levels + 1, "conv2": levels + 2}
    pattern = r"(?:block\.(?P<level>\d+)\.)?(?:res_unit(?P<unit>\d)\.)?(?P<layer>\w+?)\.(?P<tensor>.+)"
    match = re.fullmatch(pattern, key)
    if match is None:
        return key
    names = within if match["unit"] else level if match["level"] else whole
    if match["layer"] not in names:
        return key
    places = [int(match["level"]) + 1] if match["level"] else []
    places += [before + int(match["unit"]) - 1] if match["unit"] else []
    return ".".join(map(str, [*places, names[match["layer"]], match["tensor"]]))


def _plain(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Multiplies weight normalization out, and takes Snake's parameters out of their logarithms."""
    for key, tensor in tensors.items():
        if re.search(_GAIN, key):
            continue
        if re.search(_DIRECTION, key):
            gain = next((tensors[g] for g in tensors if _same_weight(g, key)), None)
            if gain is None:
                yield key, tensor  # which `load_strict` will name
            else:
                norm = torch.linalg.vector_norm(tensor, dim=(1, 2), keepdim=True)
                yield re.sub(_DIRECTION, "weight", key), tensor * (gain / norm)
        elif key.endswith(".alpha"):
            yield key, tensor.exp().reshape(-1, 1)
        elif key.endswith(".beta"):
            yield f"{key.removesuffix('beta')}gain", (tensor.exp() + _EPSILON).rsqrt().reshape(-1, 1)
        else:
            yield key, tensor
