"""The encoder `hf:REPO`: any neural codec that transformers holds, from its own repository or folder.

`model_type` in `config.json` says which:

- `encodec`: EnCodec at 24 and 32 kHz (Défossez et al. 2022, arXiv 2210.13438). Windows give what the whole file gives,
  but for what its LSTM would recall from before the overlap.
- `mimi`: Mimi (Défossez et al. 2024, arXiv 2410.00037). Likewise, but for what attention reaches through its layers
  from before the overlap; with `overlap_seconds` of the sliding window times the layers (80 s) they are equal.
- `xcodec`: X-Codec (Ye et al. 2024, arXiv 2408.17175). Its HuBERT hears all of a file at once: only a file of one
  window gives what the whole file gives.
- `dac`: the encoder `dac` takes over.

EnCodec at 48 kHz is refused. It cuts a file into seconds that overlap by 1%, makes each equally loud, and gives 150
frames for 0.99 s: neighbouring frames repeat what the others say, the rate is no whole number of samples, and
without a factor a second, which no column of tokens holds, the codes cannot be decoded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from audioprep.encoders import dac
from audioprep.encoders.base import Encoder, EncoderSpec
from audioprep.encoders.checkpoints import first_of, local_files, sha256_of_weights
from audioprep.encoders.receptive_field import encoder_reach
from audioprep.encoders.torch_encoder import TorchSettings, batch_size, numeric_settings
from audioprep.errors import UsageError

_WEIGHTS = "model.safetensors|pytorch_model.bin"

Layer = tuple[int, int, int, int]
"""A convolution: kernel size, stride, dilation, and samples of padding on the left."""


class Settings(TorchSettings):
    """Settings of `hf:REPO`."""

    num_codebooks: int | None = Field(default=None, ge=1, description="The first so many codebooks. Default: all.")
    bandwidth: float | None = Field(
        default=None, gt=0, description="Instead of num_codebooks: kbit/s, one of the model's target_bandwidths."
    )
    window_seconds: float | None = Field(default=None, gt=0, description="Seconds encoded at a time.")
    overlap_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Seconds before a window that its LSTM or attention hears; for X-Codec also after it.",
    )


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a configuration says.

    Attributes:
        bandwidths: kbit/s to choose from; empty where there is no such choice.
        stem: samples that the convolutions before an LSTM or attention see to the left and right of a frame.
        reach: those that all convolutions see.
        window: seconds of a window by default.
        context: likewise of context.
        sides: contexts that a window has: 1 for a causal model, else 2.
    """

    sample_rate: int
    channels: int
    hop_length: int
    num_codebooks: int
    codebook_size: int
    bandwidths: tuple[float, ...]
    stem: tuple[int, int]
    reach: tuple[int, int]
    window: float
    context: float
    sides: int = 1


def _reach(layers: list[Layer]) -> tuple[int, int]:
    """Samples that a stack of convolutions sees to the left of a frame's own, and to the right."""
    left = right = 0
    step = 1
    for kernel, stride, dilation, padding in layers:
        left += padding * step
        right += ((kernel - 1) * dilation - padding - (stride - 1)) * step
        step *= stride
    return left, right


def _seanet(config: dict[str, Any]) -> Callable[..., Layer]:
    """Makes the layers of EnCodec and Mimi: all padding on the left, or the larger half."""

    def layer(kernel: int, stride: int = 1, dilation: int = 1) -> Layer:
        total = (kernel - 1) * dilation + 1 - stride
        return kernel, stride, dilation, total if config["use_causal_conv"] else total - total // 2

    return layer


def _seanet_encoder(config: dict[str, Any]) -> list[Layer]:
    """The layers of their encoder, but for the last."""
    layer = _seanet(config)
    layers = [layer(config["kernel_size"])]
    for ratio in reversed(config["upsampling_ratios"]):
        dilations = (config["dilation_growth_rate"] ** number for number in range(config["num_residual_layers"]))
        layers.extend(layer(config["residual_kernel_size"], dilation=dilation) for dilation in dilations)
        layers.append(layer(2 * ratio, stride=ratio))
    return layers


def _rvq(config: dict[str, Any], sample_rate: int, hop_length: int) -> dict[str, Any]:
    """The codebooks that the highest of some bandwidths needs."""
    bits = math.ceil(math.log2(config["codebook_size"]))
    return {
        "sample_rate": sample_rate,
        "hop_length": hop_length,
        "codebook_size": config["codebook_size"],
        "num_codebooks": int(1000 * config["target_bandwidths"][-1] // (math.ceil(sample_rate / hop_length) * bits)),
        "bandwidths": tuple(config["target_bandwidths"]),
    }


def _encodec(config: dict[str, Any], path: Path) -> Architecture:
    if config["normalize"] or config["chunk_length_s"] or config["norm_type"] != "weight_norm":
        raise UsageError(
            f"{path}: this model cuts its input into seconds that overlap and are made equally loud, as EnCodec at "
            "48 kHz does: its codes do not follow each other in time, and cannot be decoded without each second's "
            "loudness. Choose another one, such as facebook/encodec_32khz or facebook/encodec_24khz."
        )
    layers = _seanet_encoder(config)
    return Architecture(
        **_rvq(config, config["sampling_rate"], math.prod(config["upsampling_ratios"])),
        channels=config["audio_channels"],
        stem=_reach(layers),
        reach=_reach([*layers, _seanet(config)(config["last_kernel_size"])]),
        window=60,
        context=5,
    )


def _mimi(config: dict[str, Any], path: Path) -> Architecture:
    layer = _seanet(config)
    layers = [*_seanet_encoder(config), layer(config["last_kernel_size"])]
    step = math.prod(config["upsampling_ratios"])
    return Architecture(
        sample_rate=config["sampling_rate"],
        channels=config["audio_channels"],
        hop_length=2 * step,
        num_codebooks=config["num_quantizers"],
        codebook_size=config["codebook_size"],
        bandwidths=(),
        stem=_reach(layers),
        reach=_reach([*layers, layer(4, stride=2)]),
        window=60,
        context=config["sliding_window"] * step / config["sampling_rate"],
    )


def _xcodec(config: dict[str, Any], path: Path) -> Architecture:
    ratios = config["acoustic_model_config"]["downsampling_ratios"]
    reach = encoder_reach(ratios)  # its acoustic encoder is DAC's
    return Architecture(
        **_rvq(config, config["sample_rate"], math.prod(ratios)),
        channels=1,
        stem=reach,
        reach=reach,
        window=30,
        context=2,
        sides=2,
    )


_FAMILIES = {"encodec": _encodec, "mimi": _mimi, "xcodec": _xcodec}


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; reads `config.json` and hashes the weights, and does not import torch.

    Raises:
        UsageError: there are no such weights, the configuration is none of a codec, or a setting does not fit it.
    """
    folder, config = _configuration(settings)
    if config["model_type"] == "dac":
        return dac.describe(_for_dac(settings))
    if settings.compile:
        raise UsageError(
            f"{settings.weights}: cannot be compiled: each window is encoded at its own length, and would be compiled "
            "anew for each. Leave `compile` out."
        )
    architecture = _architecture(folder, config)
    local_files(settings.weights, [_WEIGHTS], encoder="hf")
    hop_length, (left, right) = architecture.hop_length, architecture.reach
    window = (settings.window_seconds or architecture.window) * architecture.sample_rate
    seconds = architecture.context if settings.overlap_seconds is None else settings.overlap_seconds
    context = round(seconds * architecture.sample_rate)
    return EncoderSpec(
        name=f"hf:{config['model_type']}",
        kind="tokens",
        sample_rate=architecture.sample_rate,
        channels=architecture.channels,
        hop_length=hop_length,
        window=max(1, round(window / hop_length)) * hop_length,
        left_context=-(-(left + context) // hop_length) * hop_length,
        right_context=-(-(right + context * (architecture.sides - 1)) // hop_length) * hop_length,
        batch_size=batch_size(settings, cpu=1, cuda=8),
        fingerprint=sha256_of_weights([folder / "config.json", first_of(folder, _WEIGHTS)]),
        num_codebooks=_num_codebooks(settings, architecture),
        codebook_size=architecture.codebook_size,
        settings=numeric_settings(settings) | {"transformers": version("transformers")},
    )


def load(settings: Settings) -> Encoder:
    """Loads the model onto the device.

    Raises:
        UsageError: as `describe`; or the weights do not fit the configuration.
        SystemFault: the device cannot be used.
    """
    folder, config = _configuration(settings)
    if config["model_type"] == "dac":
        return dac.load(_for_dac(settings))
    spec = describe(settings)
    from audioprep.encoders.hf_models import load_codec

    return load_codec(config, first_of(folder, _WEIGHTS), _architecture(folder, config).stem, spec, settings)


def _configuration(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """The folder of a model, and its configuration, of a known family."""
    folder = local_files(settings.weights, ["config.json"], encoder="hf")
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; give the folder with config.json and the weights")
    path = folder / "config.json"
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as a configuration: {error}. Fetch it again.") from error
    known = ["dac", *_FAMILIES]
    if config.get("model_type") not in known:
        raise UsageError(
            f"{path}: model_type is {config.get('model_type')!r}, and the codecs that transformers holds are "
            f"{', '.join(sorted(known))}. Choose a repository of one of them."
        )
    return folder, config


def _architecture(folder: Path, config: dict[str, Any]) -> Architecture:
    path = folder / "config.json"
    try:
        return _FAMILIES[config["model_type"]](config, path)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UsageError(
            f"{path}: is no whole configuration of {config['model_type']}: {error!r}. Fetch it again, or save it anew "
            "with transformers."
        ) from error


def _num_codebooks(settings: Settings, architecture: Architecture) -> int:
    if settings.bandwidth is None:
        wanted = settings.num_codebooks or architecture.num_codebooks
        if wanted > architecture.num_codebooks:
            raise UsageError(
                f"{settings.weights}: has {architecture.num_codebooks} codebooks, and num_codebooks is {wanted}"
            )
        return wanted
    if settings.num_codebooks is not None:
        raise UsageError(f"{settings.weights}: bandwidth and num_codebooks say the same: give only one")
    if settings.bandwidth not in architecture.bandwidths:
        choice = ", ".join(f"{bandwidth:g}" for bandwidth in architecture.bandwidths)
        raise UsageError(
            f"{settings.weights}: bandwidth is {settings.bandwidth:g}; "
            + (f"choose one of {choice}" if choice else "this model has none: give num_codebooks")
        )
    bits = math.log2(architecture.codebook_size) * math.ceil(architecture.sample_rate / architecture.hop_length)
    return max(1, int(settings.bandwidth * 1000 / bits))


def _for_dac(settings: Settings) -> dac.Settings:
    own = {"bandwidth", "window_seconds", "overlap_seconds"}
    if given := sorted(own & settings.model_dump(exclude_none=True).keys()):
        raise UsageError(f"{settings.weights}: is a DAC, which takes no {', '.join(given)}: its windows are exact")
    return dac.Settings(**settings.model_dump(exclude=own))
