"""Finds a SAME autoencoder's JSON model config and weights, and says what its encoder is made of.

The config is of stable-audio-3: of the autoencoder alone, or of a whole model that has it as its `pretransform`. Does
not import torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from audioprep.encoders.checkpoints import local_files
from audioprep.errors import UsageError

_CONFIG, _CHECKPOINT = "model_config.json", "model.safetensors"


@dataclass(frozen=True, slots=True)
class SameConfig:
    """What a config says of the encoder. A group is the `stride` patches of a latent and the token that becomes it.

    Attributes:
        sample_rate: of the samples, in Hz.
        audio_channels: `C`.
        patch: samples of a patch.
        stride: patches of a latent.
        width: of a token.
        head_dim: of a head of attention.
        inner: width within a feed-forward layer.
        depth: blocks.
        dim: width of a latent.
        chunk: groups that attend to each other alone; None: attention slides.
        shifted: the second half of the blocks has its chunks half a chunk later.
        reach: where attention slides, groups that a token sees to the left and to the right.
    """

    sample_rate: int
    audio_channels: int
    patch: int
    stride: int
    width: int
    head_dim: int
    inner: int
    depth: int
    dim: int
    chunk: int | None
    shifted: bool
    reach: tuple[int, int]

    @property
    def hop_length(self) -> int:
        """Samples of a latent."""
        return self.patch * self.stride

    @property
    def grid(self) -> int:
        """Latents that a file is filled up to a multiple of, and that a window starts on a multiple of."""
        return self.chunk or 1

    @property
    def context(self) -> tuple[int, int]:
        """Latents before and after a window that it depends on, or up to a chunk more."""
        if self.chunk is None:
            return self.depth * self.reach[0], self.depth * self.reach[1]
        return (self.chunk, self.chunk) if self.shifted else (0, 0)


def find_files(weights: str, config: str | None) -> tuple[Path, Path]:
    """The config and the checkpoint.

    Args:
        weights: a checkpoint, or a folder or repository that holds `model.safetensors`.
        config: the config's path, or its name beside the checkpoint; None: `model_config.json`.

    Raises:
        UsageError: one of them is missing or cannot be fetched.
    """
    name = config or _CONFIG
    path = Path(name).expanduser()
    elsewhere = config is not None and path.is_file()
    found = local_files(weights, [_CHECKPOINT] if elsewhere else [name, _CHECKPOINT], encoder="same")
    checkpoint = found if found.is_file() else found / _CHECKPOINT
    return path if elsewhere else checkpoint.parent / name, checkpoint


def read_config(path: Path) -> SameConfig:
    """Reads a config.

    Raises:
        UsageError: the file cannot be read, lacks something, contradicts itself, or is of another autoencoder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Give SAME's model config.") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON ({error}); give SAME's model config") from error
    model = content.get("model") if isinstance(content, dict) else None
    whole = isinstance(model, dict) and "encoder" not in model and "pretransform" in model
    try:
        return (_WholeModel if whole else _Alone).model_validate(content).read()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        given = f", not {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
        raise UsageError(
            f"{path}: {where}: {first['msg']}{given}. The encoder same takes Stable Audio 3's SAME autoencoders; for "
            "those of the type oobleck there is the encoder vae."
        ) from error


class _Layers(BaseModel):
    """Arguments of stable-audio-3's `SAMEEncoder`, with its defaults.

    Of the others, `mask_noise` is left out on purpose; the rest are of training, or it ignores them too.
    """

    in_channels: PositiveInt
    channels: PositiveInt = 128
    latent_dim: PositiveInt = 32
    c_mults: tuple[PositiveInt]
    strides: tuple[PositiveInt]
    transformer_depths: tuple[PositiveInt]
    dim_heads: Annotated[int, Field(ge=4, multiple_of=4)] = 128
    ff_mult: Annotated[float, Field(gt=0)] = 3
    sliding_window: tuple[NonNegativeInt, NonNegativeInt] | None = None
    chunk_size: PositiveInt = 128
    chunk_midpoint_shift: bool = False
    differential: Literal[True] = True
    dyt: Literal[True] = True
    mapping_bias: Literal[True] = True
    conv_mapping: Literal[False] = False
    conformer: Literal[False] = False
    layer_scale: Literal[False] = False
    feat_scale: Literal[False] = False
    cross_attn: Literal[False] = False

    @model_validator(mode="after")
    def _fits(self) -> _Layers:
        width, (stride,) = self.channels * self.c_mults[0], self.strides
        if width % self.dim_heads:
            raise ValueError(f"width {width} is no multiple of dim_heads {self.dim_heads}")
        unit = stride * (2 if self.chunk_midpoint_shift else 1)
        if self.sliding_window is None and self.chunk_size % unit:
            raise ValueError(f"chunk_size {self.chunk_size} is no multiple of {unit}")
        return self


class _Encoder(BaseModel):
    config: _Layers


class _Patches(BaseModel):
    """Arguments of `PatchedPretransform` that encoding depends on."""

    channels: Annotated[int, Field(ge=1, le=2)]
    patch_size: PositiveInt
    oversampling: Literal[1] = 1


class _Pretransform(BaseModel):
    config: _Patches


class _SoftNorm(BaseModel):
    """Arguments of `SoftNormBottleneck` that encoding depends on."""

    dim: PositiveInt
    auto_scale: Literal[True]


class _Bottleneck(BaseModel):
    config: _SoftNorm


class _Autoencoder(BaseModel):
    encoder: _Encoder
    pretransform: _Pretransform
    bottleneck: _Bottleneck
    latent_dim: PositiveInt
    downsampling_ratio: PositiveInt

    @model_validator(mode="after")
    def _is_consistent(self) -> _Autoencoder:
        layers, patches = self.encoder.config, self.pretransform.config
        said = {
            "downsampling_ratio": (self.downsampling_ratio, patches.patch_size * layers.strides[0]),
            "encoder.config.in_channels": (layers.in_channels, patches.channels * patches.patch_size),
            "encoder.config.latent_dim": (layers.latent_dim, self.latent_dim),
            "bottleneck.config.dim": (self.bottleneck.config.dim, self.latent_dim),
        }
        for name, (given, follows) in said.items():
            if given != follows:
                raise ValueError(f"{name} is {given}, and {follows} follows from the rest")
        return self

    def read(self, sample_rate: int) -> SameConfig:
        layers, patches = self.encoder.config, self.pretransform.config
        width, (stride,) = layers.channels * layers.c_mults[0], layers.strides
        return SameConfig(
            sample_rate=sample_rate,
            audio_channels=patches.channels,
            patch=patches.patch_size,
            stride=stride,
            width=width,
            head_dim=layers.dim_heads,
            inner=int(width * layers.ff_mult),
            depth=layers.transformer_depths[0],
            dim=layers.latent_dim,
            chunk=None if layers.sliding_window else layers.chunk_size // stride,
            shifted=layers.chunk_midpoint_shift,
            reach=layers.sliding_window or (0, 0),
        )


class _Alone(BaseModel):
    """The model config of an autoencoder."""

    sample_rate: PositiveInt
    model: _Autoencoder

    def read(self) -> SameConfig:
        return self.model.read(self.sample_rate)


class _Nested(BaseModel):
    config: _Autoencoder


class _Model(BaseModel):
    pretransform: _Nested


class _WholeModel(BaseModel):
    """The model config of what is trained on latents."""

    sample_rate: PositiveInt
    model: _Model

    def read(self) -> SameConfig:
        return self.model.pretransform.config.read(self.sample_rate)
