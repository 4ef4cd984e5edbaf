"""Finds encoders by name: our own, and those that other packages register.

A package adds encoders with an entry point in the group `audioprep.encoders`, whose name is the codec's name and
whose value is a module that has `Settings` (a pydantic model), `describe(settings) -> EncoderSpec` (cheap: no
torch, no model) and `load(settings) -> Encoder`.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from audioprep.encoders.base import Encoder, EncoderSpec
from audioprep.errors import UsageError, nearest

_OURS = {"mel-rvq": "audioprep.encoders.mel_rvq"}


class EncoderModule(Protocol):
    """What a module has to have to be an encoder."""

    Settings: type[BaseModel]

    def describe(self, settings: Any) -> EncoderSpec: ...

    def load(self, settings: Any) -> Encoder: ...


def encoder_names() -> list[str]:
    """All names that `--codec` takes on this machine."""
    return sorted({*_OURS, *(point.name for point in entry_points(group="audioprep.encoders"))})


def describe_encoder(name: str, settings: dict[str, Any]) -> EncoderSpec:
    """The spec of an encoder with these settings, without loading a model.

    Raises:
        UsageError: no such encoder, no such setting, or no such weights.
    """
    module = _module(name)
    return module.describe(_validated(name, module, settings))


def load_encoder(name: str, settings: dict[str, Any]) -> Encoder:
    """Loads an encoder, ready to `encode`.

    Raises:
        UsageError: no such encoder, no such setting, no such weights, or a package it needs is missing.
    """
    module = _module(name)
    try:
        return module.load(_validated(name, module, settings))
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: needs the package {error.name}: see `audioprep doctor`") from error


def _validated(name: str, module: EncoderModule, settings: dict[str, Any]) -> BaseModel:
    try:
        return module.Settings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(module.Settings.model_fields))
        raise UsageError(f"{name}: setting {where}: {first['msg']}. Settings: {known}.") from error


@cache
def _module(name: str) -> EncoderModule:
    if name in _OURS:
        return importlib.import_module(_OURS[name])  # pyright: ignore[reportReturnType]
    for point in entry_points(group="audioprep.encoders", name=name):
        return point.load()
    known = encoder_names()
    raise UsageError(f"no encoder is called {name}.{nearest(name, known)} Known: {', '.join(known)}.")
