"""`audioprep train NAME`: launches a bundled trainer on a shard set."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from audioprep.bundled import trainer_path
from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.errors import UsageError, nearest
from audioprep.storage.fields import PlaceField


class Settings(CommandSettings):
    """Settings of `audioprep train`."""

    trainer: str = Field(description="Name of the trainer, such as token-lm.")
    shards: PlaceField = Field(description="Folder of the shard set, or its URL.")
    out: PlaceField = Field(description="Folder for checkpoints and logs, or its URL.")
    settings: dict[str, Any] = Field({}, description="The trainer's own settings.")


def run(settings: Settings, console: Console) -> Summary:
    """Trains; the same call again goes on from the last checkpoint.

    Raises:
        UsageError: no such trainer, or a setting that it does not have.
    """
    module = _load(trainer_path(settings.trainer))
    try:
        trainer_settings = module.Settings(shards=settings.shards, out=settings.out, **settings.settings)
    except ValidationError as error:
        first = error.errors()[0]
        known = module.Settings.model_fields
        where = ".".join(map(str, first["loc"]))
        hint = nearest(where, known) if first["type"] == "extra_forbidden" else ""
        hint = hint or f" Settings: {', '.join(known)}."
        raise UsageError(f"{settings.trainer}: setting {where}: {first['msg']}.{hint}") from error
    return module.train(trainer_settings)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    trainer_path(settings.trainer)
    return {"trainer": settings.trainer, "out": str(settings.out)} | settings.settings


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"audioprep_trainers.{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
