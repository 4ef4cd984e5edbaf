"""What the commands share: strict settings, and someone to tell how the work goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, field_validator

from audioprep.engine.run import Observer

Summary = dict[str, Any]


class CommandSettings(BaseModel):
    """Base of all commands' settings: an unknown name is an error; `~` in a path is the home folder."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        return value.expanduser() if isinstance(value, Path) else value


class Counter(Protocol):
    """Shows how far one long piece of work is, and a note on how well it goes."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


class Console(Protocol):
    """Shows a person how the work goes on (or shows nothing)."""

    def observer(self) -> AbstractContextManager[Observer]: ...

    def counter(self, label: str) -> AbstractContextManager[Counter]: ...
