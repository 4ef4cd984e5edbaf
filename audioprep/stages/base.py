"""What a stage is, and the ways in which an item can end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from audioprep.corpus.entry import Entry
from audioprep.errors import InputError

# Called with the seconds of audio done since the last call: the run's heartbeat.
Heartbeat = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """An item that gave columns. `row` is its place in the part."""

    row: int
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that could not be processed, through its own fault."""

    row: int
    error: InputError


Outcome = Kept | Failed


def _silent(seconds: float) -> None:
    """A heartbeat that nobody hears."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a worker has, none of which may change a byte of what comes out.

    Attributes:
        device: `cpu`, or one CUDA device such as `cuda:0`.
        decode_threads: files that are decoded side by side, ahead of the encoder.
        isolated: decode every file in a process of its own, because one of them has killed or stalled a worker.
        heartbeat: to be called often.
    """

    device: str = "cpu"
    decode_threads: int = 2
    isolated: bool = False
    heartbeat: Heartbeat = _silent


class Stage(Protocol):
    """A pure function of items and settings. It is sent to worker processes, so it holds settings only.

    Attributes:
        name: of the stage, also in `failures.parquet`.
        settings: all that can change what comes out, as plain values; equal settings mean equal bytes.
        schema: the columns that it gives for each item.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def schema(self) -> pa.Schema: ...

    def run(self, entries: Sequence[Entry], resources: Resources) -> Iterator[Outcome]:
        """Processes one part.

        Gives one outcome, in order, for every entry; one with a `problem` may be left to the stage that reads text.
        """
        ...
