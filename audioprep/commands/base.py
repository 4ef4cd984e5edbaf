"""What the commands share: strict settings, and someone to tell how the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from audioprep.corpus.entry import Entry
from audioprep.corpus.exclusions import Exclusions, read_exclusions_of
from audioprep.corpus.scan import Finder, scan
from audioprep.engine.run import Observer
from audioprep.storage.fields import PlaceField, local_path

Summary = dict[str, Any]


class CommandSettings(BaseModel):
    """Base of all commands' settings: an unknown name is an error; `~` in a path is the home folder.

    A setting of the type `Path` takes a local path alone, one of the type `PlaceField` a URL too.
    """

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _local_paths(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [local_path(item) if isinstance(item, Path) else item for item in value]
        return local_path(value) if isinstance(value, Path) else value


class CorpusSettings(CommandSettings):
    """Settings of every command that looks for inputs."""

    source: list[str] = Field(min_length=1, description="Files, folders, manifests, saved data sets.")
    limit: PositiveInt | None = Field(None, description="Only the first so many inputs.")
    exclude: PlaceField | None = Field(None, description="File with inputs to leave out, a path a line.")

    def exclusions(self) -> Exclusions:
        """
        Raises:
            UsageError: the list cannot be read.
        """
        return read_exclusions_of(self.exclude, self.source)

    def entries(self, on_found: Callable[[int], None] | None = None, find: Finder = scan) -> Iterator[Entry]:
        """The inputs; see `audioprep.corpus.scan.Finder`."""
        return islice(find(self.source, on_found, self.exclusions()), self.limit)


class Counter(Protocol):
    """Shows how far one long piece of work is, and a note on how well it goes."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


class Console(Protocol):
    """Shows a person how the work goes on (or shows nothing)."""

    def observer(self) -> AbstractContextManager[Observer]: ...

    def counter(self, label: str) -> AbstractContextManager[Counter]: ...
