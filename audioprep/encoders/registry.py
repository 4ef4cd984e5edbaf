"""Finds encoders by name: our own, the codecs that transformers holds, and those that other packages register.

A package adds encoders with an entry point in the group `audioprep.encoders`, whose name is the encoder's name and
whose value is a module that has `Settings` (a pydantic model), `describe(settings) -> EncoderSpec` (cheap: no
torch, no model) and `load(settings) -> Encoder`.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ValidationError

from audioprep.encoders.base import Encoder, EncoderSpec, Kind
from audioprep.encoders.checkpoints import is_cached
from audioprep.errors import UsageError, nearest


class _Known(NamedTuple):
    """An encoder of ours.

    Attributes:
        kind: what comes out.
        module: its module.
        column: that its values go to where the user names none.
        packages: that it needs, by the names under which they are imported.
        preset: settings that its name stands for.
        wants: what the user still has to give.
        prefers_cpu: it is so fast on a CPU core that a GPU would wait for audio.
    """

    kind: Kind
    module: str
    column: str
    packages: tuple[str, ...]
    preset: dict[str, Any]
    wants: str | None = None
    prefers_cpu: bool = False


def _weights(preset: dict[str, Any]) -> str | None:
    return None if "weights" in preset else "--weights"


def _dac(**preset: Any) -> _Known:
    return _Known("tokens", "dac", "audio_tokens", ("torch", "transformers"), preset, _weights(preset))


def _vae(**preset: Any) -> _Known:
    return _Known("latents", "vae", "latents", ("torch", "safetensors"), preset, _weights(preset))


def _same(**preset: Any) -> _Known:
    return _Known("latents", "same", "latents", ("torch", "safetensors"), preset, _weights(preset))


def _clap(**preset: Any) -> _Known:
    return _Known("embedding", "clap", "clap_embedding", ("torch", "transformers"), preset, _weights(preset))


_MUQ = {"weights": "OpenMuQ/MuQ-large-msd-iter"}
_OURS = {
    "mel-rvq": _Known("tokens", "mel_rvq", "audio_tokens", ("torch", "safetensors"), {}, prefers_cpu=True),
    "dac": _dac(),
    "dac-16khz": _dac(weights="descript/dac_16khz"),
    "dac-24khz": _dac(weights="descript/dac_24khz"),
    "dac-44khz": _dac(weights="descript/dac_44khz"),
    "fingerprint": _Known("tokens", "fingerprint", "fingerprint", (), {}),
    "heartcodec": _Known(
        "tokens",
        "heartcodec",
        "audio_tokens",
        ("torch", "transformers"),
        {"weights": "HeartMuLa/HeartCodec-oss-encoder"},
    ),
    "muq": _Known("latents", "muq", "muq", ("torch", "muq"), _MUQ),
    "muq-vq": _Known("tokens", "muq_vq", "sketch_tokens", ("torch", "muq"), _MUQ, "--set codebook=FILE"),
    "vae": _vae(),
    "vae-stable-audio": _vae(weights="stabilityai/stable-audio-open-1.0", subfolder="vae"),
    "vae-songbloom": _vae(weights="CypressYang/SongBloom", config="stable_audio_1920_vae.json"),
    "same": _same(),
    "same-s": _same(weights="stabilityai/SAME-S"),
    "same-l": _same(weights="stabilityai/SAME-L"),
    "clap": _clap(),
    "clap-htsat-fused": _clap(weights="laion/clap-htsat-fused"),
    "clap-htsat-unfused": _clap(weights="laion/clap-htsat-unfused"),
    "clap-music": _clap(weights="lukewys/laion_clap", file="music_audioset_epoch_15_esc_90.14.pt"),
    "clap-music-speech": _clap(weights="lukewys/laion_clap", file="music_speech_audioset_epoch_15_esc_89.98.pt"),
}
_COLUMNS: dict[Kind, str] = {"tokens": "audio_tokens", "latents": "latents", "embedding": "embedding"}
_HUB_PREFIX = "hf:"  # any codec that transformers holds, by its repository or folder


class EncoderModule(Protocol):
    """What a module has to have to be an encoder."""

    Settings: type[BaseModel]

    def describe(self, settings: Any) -> EncoderSpec: ...

    def load(self, settings: Any) -> Encoder: ...


def encoder_names(*kinds: Kind) -> list[str]:
    """All names that `--codec` (tokens) and `--encoder` take on this machine; plug-ins are in every list."""
    ours = [name for name, known in _OURS.items() if not kinds or known.kind in kinds]
    return sorted({*ours, *(point.name for point in entry_points(group="audioprep.encoders"))})


class Readiness(NamedTuple):
    """What an encoder still needs on this machine.

    Attributes:
        packages: that are missing.
        repository: of the Hub, from which its weights would be downloaded.
        wants: what the user has to give: an option.
    """

    packages: tuple[str, ...] = ()
    repository: str | None = None
    wants: str | None = None


def readiness(name: str) -> Readiness:
    """What an encoder of this name still needs; plug-ins look after themselves."""
    if name not in _OURS:
        return Readiness()
    known = _OURS[name]
    missing = tuple(package for package in known.packages if find_spec(package) is None)
    repository = known.preset.get("weights")
    return Readiness(missing, None if repository is None or is_cached(repository) else repository, known.wants)


def default_column(name: str, kind: Kind) -> str:
    """The column that an encoder's values go to where the user names none."""
    return _OURS[name].column if name in _OURS else _COLUMNS[kind]


def weights_of(name: str, settings: dict[str, Any]) -> str | None:
    """Where an encoder's weights are from: a file, a folder or a repository; None where they come with it."""
    preset = _OURS[name].preset.get("weights") if name in _OURS else None
    own = name.removeprefix(_HUB_PREFIX) if name.startswith(_HUB_PREFIX) else preset
    return settings.get("weights") or own


def prefers_cpu(name: str) -> bool:
    """Whether an encoder is to run on CPU cores where the user names no device."""
    return name in _OURS and _OURS[name].prefers_cpu


def describe_encoder(name: str, settings: dict[str, Any]) -> EncoderSpec:
    """The spec of an encoder with these settings, without loading a model.

    Raises:
        UsageError: no such encoder, no such setting, or no such weights.
    """
    module, validated = _find(name, settings)
    try:
        return module.describe(validated)
    except ModuleNotFoundError as error:  # also where the version of a package is asked for that is not there
        raise UsageError(f"{name}: needs the package {error.name}: see `audioprep doctor`") from error


def load_encoder(name: str, settings: dict[str, Any]) -> Encoder:
    """Loads an encoder, ready to `encode`.

    Raises:
        UsageError: no such encoder, no such setting, no such weights, or a package it needs is missing.
    """
    module, validated = _find(name, settings)
    try:
        return module.load(validated)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: needs the package {error.name}: see `audioprep doctor`") from error


def _find(name: str, settings: dict[str, Any]) -> tuple[EncoderModule, BaseModel]:
    """The module of an encoder, and its settings, checked."""
    module, preset = _module(name)
    try:
        return module, module.Settings(**preset | settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing" and where == "weights":
            raise UsageError(f"{name}: give --weights: a file, a folder or a repository of the Hub") from error
        known = ", ".join(sorted(module.Settings.model_fields))
        raise UsageError(f"{name}: setting {where}: {first['msg']}. Settings: {known}.") from error


@cache
def _module(name: str) -> tuple[EncoderModule, dict[str, Any]]:
    if name in _OURS:
        return _import(_OURS[name].module), _OURS[name].preset
    if name.startswith(_HUB_PREFIX):
        return _import("hf_codec"), {"weights": name.removeprefix(_HUB_PREFIX)}
    for point in entry_points(group="audioprep.encoders", name=name):
        return point.load(), {}
    known = encoder_names()
    raise UsageError(
        f"no encoder is called {name}.{nearest(name, known)} Known: {', '.join(known)}; and hf:ORG/NAME, for any codec "
        "that transformers holds."
    )


def _import(module: str) -> EncoderModule:
    return importlib.import_module(f"audioprep.encoders.{module}")  # pyright: ignore[reportReturnType]
