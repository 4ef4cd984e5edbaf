"""What the commands share: strict settings, and someone to tell how the work goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from audioprep.engine.run import Observer

Summary = dict[str, Any]


class CommandSettings(BaseModel):
    """Base of all commands' settings: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid")


class Counter(Protocol):
    """Shows how far one long piece of work is."""

    def __call__(self, done: int, total: int | None) -> None: ...


class Console(Protocol):
    """Shows a person how the work goes on (or shows nothing)."""

    def observer(self) -> AbstractContextManager[Observer]: ...

    def counter(self, label: str) -> AbstractContextManager[Counter]: ...
