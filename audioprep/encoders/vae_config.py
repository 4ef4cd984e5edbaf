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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, PositiveInt, ValidationError

from audioprep.encoders.checkpoints import first_of, local_files
from audioprep.errors import UsageError

_CHECKPOINTS = {
    "config.json": "diffusion_pytorch_model.safetensors|diffusion_pytorch_model.bin",
    "vae_config.json": "vae_model.safetensors|vae_model.ckpt",
    "model_config.json": "model.safetensors|model.ckpt",
    "stable_audio_1920_vae.json": "autoencoder_music_dsp1920.ckpt|autoencoder_music_1320k.ckpt",  # SongBloom, LeVo
}
"""What checkpoints are called beside a configuration of this name."""

RESIDUAL_REACH = 3 * (1 + 3 + 9)  # samples on either side: three kernels of 7, dilated by 1, 3 and 9


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

    def encoder_reach(self) -> tuple[int, int]:
        """Samples before a frame's first one, and after its last one, that the frame depends on."""
        left = right = 1  # of the last convolution, in frames
        for stride in reversed(self.strides):
            padding = math.ceil(stride / 2)
            left = left * stride + padding + RESIDUAL_REACH
            right = right * stride + 2 * stride - 1 - padding + RESIDUAL_REACH
        return left + 3, right + 3 - (self.hop_length - 1)

    def decoder_reach(self) -> int:
        """Frames on either side that a frame's samples depend on, or one more."""
        reach, rate = 4.0, 1
        for stride in reversed(self.strides):
            reach += 2 / rate + RESIDUAL_REACH / (rate * stride)
            rate *= stride
        return math.ceil(reach)


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
    path = Path(weights).expanduser()
    config_path = Path(config).expanduser() if config else None
    if path.is_file():
        if config_path is None:
            raise UsageError(f"{path}: vae: give the setting config: the JSON model config that belongs to this file")
        return config_path, path
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
    if not isinstance(content, dict):
        raise UsageError(f"{path}: is no configuration of an autoencoder; give another one")
    config = _stable_audio_tools(content, path) if "model" in content else _diffusers(content, path)
    _check(config.encoder, path)
    if config.encoder.latent_channels % 2:
        raise UsageError(
            f"{path}: the encoder's {config.encoder.latent_channels} channels are no mean and scale of as many each; "
            "give the configuration that belongs to the weights"
        )
    return config


def _check(stack: Stack, path: Path) -> None:
    if len(stack.multiples) != len(stack.strides):
        raise UsageError(
            f"{path}: has {len(stack.strides)} strides for {len(stack.multiples)} levels; give the configuration that "
            "belongs to the weights"
        )
    if stack.audio_channels > 2:
        raise UsageError(f"{path}: wants {stack.audio_channels} channels of audio; there are weights for 1 or 2")


_Strides = Annotated[tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=1)]
_Multiples = tuple[PositiveInt, ...]
_Model = TypeVar("_Model", bound=BaseModel)


class _Diffusers(BaseModel):
    """Arguments of diffusers' `AutoencoderOobleck`, with its defaults."""

    encoder_hidden_size: PositiveInt = 128
    downsampling_ratios: _Strides = (2, 4, 4, 8, 8)
    channel_multiples: _Multiples = (1, 2, 4, 8, 16)
    decoder_channels: PositiveInt = 128
    decoder_input_channels: PositiveInt = 64
    audio_channels: PositiveInt = 2
    sampling_rate: PositiveInt = 44_100


class _Oobleck(BaseModel):
    """Arguments of stable-audio-tools' `OobleckEncoder` and `OobleckDecoder`, with their defaults."""

    in_channels: PositiveInt = 2
    out_channels: PositiveInt = 2
    channels: PositiveInt = 128
    latent_dim: PositiveInt = 32
    c_mults: _Multiples = (1, 2, 4, 8)
    strides: _Strides = (2, 4, 8, 8)
    use_snake: bool = False
    antialias_activation: bool = False
    use_nearest_upsample: bool = False
    final_tanh: bool = True


class _Part(BaseModel):
    type: str
    config: dict[str, Any] = {}
    soft_clip: bool = False


class _Autoencoder(BaseModel):
    encoder: _Part
    decoder: _Part | None = None
    bottleneck: _Part | None = None
    pretransform: _Part | None = None
    latent_dim: PositiveInt
    downsampling_ratio: PositiveInt


def _parse(model: type[_Model], content: Any, path: Path, where: str = "") -> _Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])])
        raise UsageError(
            f"{path}: {name}: {first['msg']}. Give the configuration of the autoencoder that the weights are of."
        ) from error


def _diffusers(content: dict[str, Any], path: Path) -> VaeConfig:
    name = content.get("_class_name")
    if name != "AutoencoderOobleck":
        raise UsageError(
            f"{path}: is the configuration of {name or 'something else'}; the encoder vae takes diffusers' "
            "AutoencoderOobleck (in a pipeline's repository: subfolder vae) and models of stable-audio-tools"
        )
    got = _parse(_Diffusers, content, path)
    encoder = Stack(
        audio_channels=got.audio_channels,
        width=got.encoder_hidden_size,
        multiples=got.channel_multiples,
        strides=got.downsampling_ratios,
        latent_channels=got.encoder_hidden_size,
        snake=True,
    )
    decoder = Stack(
        audio_channels=got.audio_channels,
        width=got.decoder_channels,
        multiples=got.channel_multiples,
        strides=got.downsampling_ratios,
        latent_channels=got.decoder_input_channels,
        snake=True,
    )
    return VaeConfig("diffusers", got.sampling_rate, encoder, decoder)


def _stable_audio_tools(content: dict[str, Any], path: Path) -> VaeConfig:
    model, where = content["model"], "model"
    if isinstance(model, dict) and "encoder" not in model and isinstance(model.get("pretransform"), dict):
        model, where = model["pretransform"].get("config"), "model.pretransform.config"
    sample_rate = _parse(_SampleRate, content, path).sample_rate
    got = _parse(_Autoencoder, model, path, where)
    _refuse_others(content, got, path)
    encoder = _parse(_Oobleck, got.encoder.config, path, f"{where}.encoder.config")
    config = VaeConfig(
        "stable-audio-tools",
        sample_rate,
        _stack(encoder, encoder.in_channels),
        _decoder(got.decoder, path, f"{where}.decoder.config", got.latent_dim),
    )
    if encoder.antialias_activation:
        raise UsageError(f"{path}: antialias_activation is not supported; give another autoencoder")
    if (config.encoder.hop_length, config.dim) != (got.downsampling_ratio, got.latent_dim):
        raise UsageError(
            f"{path}: says downsampling_ratio {got.downsampling_ratio} and latent_dim {got.latent_dim}, but its "
            f"encoder gives {config.encoder.hop_length} and {config.dim}; give another configuration"
        )
    return config


class _SampleRate(BaseModel):
    sample_rate: PositiveInt


def _refuse_others(content: dict[str, Any], got: _Autoencoder, path: Path) -> None:
    """
    Raises:
        UsageError: the model is no autoencoder whose latents an Oobleck encoder gives.
    """
    kind = content.get("model_type")
    faults = {
        f"encoder is of the type {got.encoder.type}": got.encoder.type != "oobleck",
        f"bottleneck is {got.bottleneck.type if got.bottleneck else 'missing'}": (
            got.bottleneck is None or got.bottleneck.type != "vae"
        ),
        f"pretransform is {got.pretransform.type if got.pretransform else ''}": got.pretransform is not None,
        f"model_type is {kind}": kind == "diffusion_autoencoder",
    }
    for fault, is_there in faults.items():
        if is_there:
            raise UsageError(
                f"{path}: its {fault}; the encoder vae takes autoencoders of the type oobleck with the bottleneck vae "
                "(Stable Audio 2 and Open, SongBloom, ACE-Step 1.5)"
            )


def _stack(got: _Oobleck, audio_channels: int, tanh: int = 0) -> Stack:
    return Stack(
        audio_channels=audio_channels,
        width=got.channels,
        multiples=got.c_mults,
        strides=got.strides,
        latent_channels=got.latent_dim,
        snake=got.use_snake,
        tanh=tanh,
    )


def _decoder(part: _Part | None, path: Path, where: str, dim: int) -> Stack | str:
    if part is None or part.type != "oobleck":
        return f"decoder is {f'of the type {part.type}' if part else 'missing'}"
    got = _parse(_Oobleck, part.config, path, where)
    for option in ("antialias_activation", "use_nearest_upsample"):
        if getattr(got, option):
            return f"decoder has {option}"
    if got.latent_dim != dim:
        return f"decoder takes latents of {got.latent_dim} channels"
    stack = _stack(got, got.out_channels, tanh=got.final_tanh + part.soft_clip)
    _check(stack, path)
    return stack
