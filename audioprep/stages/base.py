"""What a stage is, and the ways in which an item can end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from audioprep.corpus.entry import Entry
from audioprep.errors import InputError


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


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat of a run's heart: what was done since the last one.

    Attributes:
        seconds: of audio.
        elapsed: seconds that the encoders could have worked in.
        waited: those of them in which they waited for decoded audio.
        rows: windows that an encoder encodes at once, by column, where memory has run out for more.
    """

    seconds: float = 0.0
    elapsed: float = 0.0
    waited: float = 0.0
    rows: dict[str, int] = field(default_factory=dict)


def _silent(beat: Beat) -> None:
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
    heartbeat: Callable[[Beat], None] = _silent


class Stage(Protocol):
    """A pure function of items and settings. It is sent to worker processes, so it holds settings only.

    Attributes:
        name: of the stage, also in `failures.parquet`.
        settings: all that can change what comes out, as plain values; equal settings mean equal bytes.
        origin: plain values from which a later run can make the stage again.
        schema: the columns that it gives for each item.
        uses_gpu: whether it computes on the device of its worker, where that is a GPU; else on CPU cores alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def origin(self) -> dict[str, Any]: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def uses_gpu(self) -> bool: ...

    @staticmethod
    def run(stages: Sequence[Any], entries: Sequence[Entry], resources: Resources) -> Iterator[tuple[str, Outcome]]:
        """Processes one part in several stages of this class at once, which share what they read.

        Gives, with the stage's name, one outcome for every stage and entry, in the order of the entries; those of an
        entry with a `problem` may be left to the stage that reads text.
        """
        ...
