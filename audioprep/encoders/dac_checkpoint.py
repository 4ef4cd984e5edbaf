"""Finds DAC's configuration and weights, in both layouts that they are published in.

- a folder or repository of transformers: `config.json` of the class `DacModel`, `model.safetensors`;
- the `.pth` of descript-audio-codec, which holds its own configuration.

Imports torch only to read tensors, or a `.pth`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, PositiveInt, ValidationError

from audioprep.encoders.checkpoints import first_of, load_strict, load_tensors, local_files
from audioprep.encoders.receptive_field import decoder_reach, encoder_reach
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DacModel

_WEIGHTS = "model.safetensors|pytorch_model.bin"
_WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

_Strides = Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]


class Architecture(BaseModel):
    """What a configuration says, by the names of `transformers.DacConfig`; descript's names are understood too."""

    sampling_rate: PositiveInt = Field(validation_alias=AliasChoices("sampling_rate", "sample_rate"))
    encoder_hidden_size: PositiveInt = Field(validation_alias=AliasChoices("encoder_hidden_size", "encoder_dim"))
    downsampling_ratios: _Strides = Field(validation_alias=AliasChoices("downsampling_ratios", "encoder_rates"))
    decoder_hidden_size: PositiveInt = Field(validation_alias=AliasChoices("decoder_hidden_size", "decoder_dim"))
    upsampling_ratios: _Strides = Field(validation_alias=AliasChoices("upsampling_ratios", "decoder_rates"))
    hidden_size: PositiveInt | None = Field(None, validation_alias=AliasChoices("hidden_size", "latent_dim"))
    n_codebooks: PositiveInt
    codebook_size: PositiveInt
    codebook_dim: PositiveInt

    @property
    def hop_length(self) -> int:
        return math.prod(self.downsampling_ratios)

    @property
    def latent_channels(self) -> int:
        """`H`: channels of the latents that are quantized."""
        return self.hidden_size or self.encoder_hidden_size * 2 ** len(self.downsampling_ratios)

    def encoder_context(self) -> int:
        """Frames on either side that a frame depends on."""
        return max(-(-reach // self.hop_length) for reach in encoder_reach(self.downsampling_ratios))

    def decoder_context(self) -> int:
        """Frames on either side that a frame's samples depend on."""
        return decoder_reach(self.upsampling_ratios[::-1])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file of weights, and what they are of."""

    path: Path
    layout: Literal["transformers", "descript"]
    architecture: Architecture


def find_checkpoint(weights: str) -> Checkpoint:
    """Finds the file, and reads the configuration that belongs to it.

    Args:
        weights: as `TorchSettings` takes them.

    Raises:
        UsageError: they are not there, or are not of a DAC.
    """
    found = local_files(weights, ["config.json", _WEIGHTS], encoder="dac")
    if found.is_file():
        return Checkpoint(found, "descript", _architecture(_content(found)["metadata"].get("kwargs"), found))
    path = found / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); fetch it again, or give other weights") from error
    name = config.get("model_type") if isinstance(config, dict) else None
    if name != "dac":
        raise UsageError(f"{path}: its model_type is {name}, not dac; for other codecs there is --codec hf:{weights}")
    return Checkpoint(first_of(found, _WEIGHTS), "transformers", _architecture(config, path))


def _architecture(config: Any, path: Path) -> Architecture:
    try:
        return Architecture.model_validate(config)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UsageError(
            f"{path}: does not describe a DAC ({said}); give weights with their own configuration"
        ) from error


def _content(path: Path) -> dict[str, Any]:
    """What a `.pth` holds."""
    content = load_tensors(path)
    if not all(isinstance(content, dict) and isinstance(content.get(key), dict) for key in ("state_dict", "metadata")):
        raise UsageError(
            f"{path}: is no checkpoint of descript-audio-codec: it lacks state_dict or metadata. Give such a file "
            "(.pth), or a folder with config.json and model.safetensors."
        )
    return content


def load_part(checkpoint: Checkpoint, part: Literal["encoder", "decoder"]) -> DacModel:
    """A `DacModel` on the CPU that has only its encoder and quantizer, or only its decoder.

    Raises:
        UsageError: the weights cannot be read, or do not fit the configuration.
    """
    import torch
    from transformers import DacConfig, DacModel

    architecture = checkpoint.architecture
    try:
        with torch.device("meta"):
            model = DacModel(DacConfig(**architecture.model_dump(exclude_none=True)))
    except ValueError as error:  # a codebook's size is no power of two
        raise UsageError(
            f"{checkpoint.path}: transformers cannot build this DAC: {error} Try other weights."
        ) from error
    others = ("decoder",) if part == "encoder" else ("encoder", "quantizer")
    for name in others:
        delattr(model, name)
    tensors = {key: tensor for key, tensor in _tensors(checkpoint) if not key.startswith(others)}
    load_strict(model.to_empty(device="cpu"), tensors, checkpoint.path)
    return model.requires_grad_(False).eval()


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the names of `DacModel`, float32, with weight normalization multiplied out."""
    if checkpoint.layout == "transformers":
        yield from _plain(load_tensors(checkpoint.path))
        return
    names = _names(len(checkpoint.architecture.downsampling_ratios))
    for key, tensor in _plain(descript_tensors(checkpoint)):
        layer, _, kind = key.rpartition(".")
        yield f"{names.get(layer, layer)}.{kind}", tensor


def descript_arguments(architecture: Architecture) -> dict[str, Any]:
    """What `dac.DAC` calls the same things."""
    return {
        "encoder_dim": architecture.encoder_hidden_size,
        "encoder_rates": architecture.downsampling_ratios,
        "latent_dim": architecture.latent_channels,
        "decoder_dim": architecture.decoder_hidden_size,
        "decoder_rates": architecture.upsampling_ratios,
        "n_codebooks": architecture.n_codebooks,
        "codebook_size": architecture.codebook_size,
        "codebook_dim": architecture.codebook_dim,
        "sample_rate": architecture.sampling_rate,
    }


def descript_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a `.pth`, as they are."""
    return _content(checkpoint.path)["state_dict"]


def _plain(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    import torch

    for new, old in _WEIGHT_NORM.items():
        tensors = {key.replace(new, old): tensor for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        layer, _, kind = key.rpartition(".")
        if kind == "weight_v" and f"{layer}.weight_g" in tensors:
            # What `weight_norm` calls in each forward pass.
            length = tensors[f"{layer}.weight_g"].float()
            yield f"{layer}.weight", torch._weight_norm(tensor.float(), length, 0)  # pyright: ignore[reportPrivateImportUsage]
        elif not (kind == "weight_g" and f"{layer}.weight_v" in tensors):
            yield key, tensor.float()


def _names(levels: int) -> dict[str, str]:
    """For each layer's name in `dac.DAC` that in `DacModel`; in the quantizer they are the same."""
    names = {}
    for part, stack, first_unit, others in (
        ("encoder", "encoder.block", 0, {3: "snake1", 4: "conv1"}),
        ("decoder", "decoder.model", 2, {0: "snake1", 1: "conv_t1"}),
    ):
        for place, layer in {0: "conv1", levels + 1: "snake1", levels + 2: "conv2"}.items():
            names[f"{stack}.{place}"] = f"{part}.{layer}"
        for level in range(levels):
            theirs, ours = f"{stack}.{level + 1}.block", f"{part}.block.{level}"
            for place, layer in others.items():
                names[f"{theirs}.{place}"] = f"{ours}.{layer}"
            for unit in range(3):
                for place, layer in enumerate(("snake1", "conv1", "snake2", "conv2")):
                    names[f"{theirs}.{first_unit + unit}.block.{place}"] = f"{ours}.res_unit{unit + 1}.{layer}"
    return names
