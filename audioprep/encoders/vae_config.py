"""Finds an Oobleck autoencoder's configuration and weights, in each layout that they are published in.

- a folder of diffusers: `config.json` of the class `AutoencoderOobleck`, `diffusion_pytorch_model.safetensors`;
- stable-audio-tools: a JSON model config and a checkpoint, of the autoencoder alone or of a whole model that has it as
  its `pretransform`.

Does not import torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

from audioprep.encoders.checkpoints import first_of, local_files, named_file
from audioprep.errors import UsageError

_CHECKPOINTS = {
    "config.json": "diffusion_pytorch_model.safetensors|diffusion_pytorch_model.bin",
    "vae_config.json": "vae_model.safetensors|vae_model.ckpt",
    "model_config.json": "model.safetensors|model.ckpt",
    "stable_audio_1920_vae.json": "autoencoder_music_dsp1920.ckpt|autoencoder_music_1320k.ckpt",  # SongBloom, LeVo
}
"""What checkpoints are called beside a configuration of this name."""


@dataclass(frozen=True, slots=True)
class Stack:
    """An Oobleck encoder or decoder, as layers of `audioprep.encoders.oobleck`.

    Attributes:
        audio_channels: `C`.
        width: channels of its first level.
        multiples: of `width`, the channels of each deeper level.
        strides: of each level; their product is the hop.
        latent_channels: on its latent side: twice as many for an encoder, which gives mean and scale.
        snake: activations are Snake; else ELU.
        tanh: how often a decoder's output goes through tanh.
    """

    audio_channels: int
    width: int
    multiples: tuple[int, ...]
    strides: tuple[int, ...]
    latent_channels: int
    snake: bool
    tanh: int = 0

    @property
    def hop_length(self) -> int:
        return math.prod(self.strides)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, the one at the audio's rate first."""
        return (self.width, *(self.width * multiple for multiple in self.multiples))


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """What a configuration says.

    Attributes:
        layout: who wrote it; decides what the tensors are called.
        sample_rate: of the samples, in Hz.
        encoder: its layers.
        decoder: its layers, or why there are none that can be built.
    """

    layout: Literal["diffusers", "stable-audio-tools"]
    sample_rate: int
    encoder: Stack
    decoder: Stack | str

    @property
    def dim(self) -> int:
        """Width of a latent."""
        return self.encoder.latent_channels // 2


def find_files(weights: str, config: str | None, subfolder: str) -> tuple[Path, Path]:
    """The configuration and the checkpoint.

    Args:
        weights: a checkpoint, or a folder or repository that holds it.
        config: the configuration's path, or its name in the folder or repository; None: one of the usual names.
        subfolder: of the folder or repository.

    Raises:
        UsageError: one of them is missing or cannot be fetched.
    """
    config_path = Path(config).expanduser() if config else None
    if file := named_file(weights):
        if config_path is None:
            raise UsageError(f"{weights}: vae: give the setting config, the JSON model config that belongs to it")
        return config_path, file
    fetch = partial(local_files, weights, encoder="vae", subfolder=subfolder)
    if config_path is None or not config_path.is_file():
        names = config or "|".join(_CHECKPOINTS)
        config_path = first_of(fetch([names]), names)
    names = _CHECKPOINTS.get(config_path.name)
    if names is None:
        raise UsageError(
            f"{weights}: vae: nothing says which of its files belongs to {config_path.name}; give the checkpoint "
            "itself as weights, and the path of the model config as the setting config"
        )
    return config_path, first_of(fetch([names]), names)


def read_config(path: Path) -> VaeConfig:
    """Reads a configuration of either layout.

    Raises:
        UsageError: the file cannot be read, lacks something, contradicts itself, or is of another kind of autoencoder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Give the autoencoder's configuration.") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON ({error}); give the autoencoder's configuration") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        kind = _Diffusers
    else:
        kind = _Sat if "encoder" in model or "pretransform" not in model else _WholeModel
    try:
        return kind.model_validate(content).read()
    except ValidationError as error:
        raise UsageError(
            f"{path}: {_said(error)}. The encoder vae takes diffusers' AutoencoderOobleck (in a pipeline's repository: "
            "subfolder vae) and stable-audio-tools' autoencoders of the type oobleck with the bottleneck vae. For "
            "Stable Audio 3's SAME there is the encoder same."
        ) from error


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    given = f", not {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
    return f"{where}: {first['msg']}{given}" if where else first["msg"]


_Strides = Annotated[tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=1)]
_Multiples = tuple[PositiveInt, ...]
_AudioChannels = Annotated[int, Field(ge=1, le=2)]


class _Oobleck(BaseModel):
    """Arguments of stable-audio-tools' `OobleckEncoder` and `OobleckDecoder`, with their defaults."""

    in_channels: _AudioChannels = 2
    out_channels: _AudioChannels = 2
    channels: PositiveInt = 128
    latent_dim: PositiveInt = 32
    c_mults: _Multiples = (1, 2, 4, 8)
    strides: _Strides = (2, 4, 8, 8)
    use_snake: bool = False
    antialias_activation: Literal[False] = False
    use_nearest_upsample: Literal[False] = False
    final_tanh: bool = True

    @model_validator(mode="after")
    def _one_stride_a_level(self) -> _Oobleck:
        if len(self.c_mults) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides for {len(self.c_mults)} levels")
        return self

    def stack(self, audio_channels: int, tanh: int = 0) -> Stack:
        return Stack(
            audio_channels, self.channels, self.c_mults, self.strides, self.latent_dim, snake=self.use_snake, tanh=tanh
        )


class _Diffusers(BaseModel):
    """Arguments of diffusers' `AutoencoderOobleck`, with its defaults."""

    class_name: Literal["AutoencoderOobleck"] = Field(alias="_class_name")
    encoder_hidden_size: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    downsampling_ratios: _Strides = (2, 4, 4, 8, 8)
    channel_multiples: _Multiples = (1, 2, 4, 8, 16)
    decoder_channels: PositiveInt = 128
    decoder_input_channels: PositiveInt = 64
    audio_channels: _AudioChannels = 2
    sampling_rate: PositiveInt = 44_100

    def read(self) -> VaeConfig:
        encoder, decoder = (
            _Oobleck(
                channels=width,
                latent_dim=latent_dim,
                c_mults=self.channel_multiples,
                strides=self.downsampling_ratios,
                use_snake=True,
            ).stack(self.audio_channels)
            for width, latent_dim in (
                (self.encoder_hidden_size, self.encoder_hidden_size),
                (self.decoder_channels, self.decoder_input_channels),
            )
        )
        return VaeConfig("diffusers", self.sampling_rate, encoder, decoder)


class _Encoder(BaseModel):
    type: Literal["oobleck"]
    config: _Oobleck


class _Decoder(_Encoder):
    soft_clip: bool = False


class _Bottleneck(BaseModel):
    type: Literal["vae"]


class _Autoencoder(BaseModel):
    encoder: _Encoder
    decoder: Any = None  # one that cannot be built hinders nobody from encoding
    bottleneck: _Bottleneck
    pretransform: None = None
    latent_dim: PositiveInt
    downsampling_ratio: PositiveInt

    @model_validator(mode="after")
    def _is_consistent(self) -> _Autoencoder:
        hop, channels = math.prod(self.encoder.config.strides), self.encoder.config.latent_dim
        if (hop, channels) != (self.downsampling_ratio, 2 * self.latent_dim):
            raise ValueError(
                f"downsampling_ratio is {self.downsampling_ratio} and latent_dim {self.latent_dim}, but its encoder "
                f"downsamples by {hop} and gives {channels} channels"
            )
        return self

    def read(self, sample_rate: int) -> VaeConfig:
        encoder = self.encoder.config
        try:
            got = _Decoder.model_validate(self.decoder)
            decoder = got.config.stack(got.config.out_channels, got.config.final_tanh + got.soft_clip)
        except ValidationError as error:
            decoder = _said(error)
        return VaeConfig("stable-audio-tools", sample_rate, encoder.stack(encoder.in_channels), decoder)


class _Sat(BaseModel):
    """The model config of an autoencoder."""

    model_type: Literal["autoencoder"] = "autoencoder"
    sample_rate: PositiveInt
    model: _Autoencoder

    def read(self) -> VaeConfig:
        return self.model.read(self.sample_rate)


class _Pretransform(BaseModel):
    type: Literal["autoencoder"]
    config: _Autoencoder


class _HasPretransform(BaseModel):
    pretransform: _Pretransform


class _WholeModel(BaseModel):
    """The model config of what is trained on latents. Its autoencoder's `scale` is the model's own matter."""

    sample_rate: PositiveInt
    model: _HasPretransform

    def read(self) -> VaeConfig:
        return self.model.pretransform.config.read(self.sample_rate)
