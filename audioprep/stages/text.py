"""The stage that reads tags, lyrics and other text: from manifests and from the files beside the audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from audioprep.corpus.entry import TEXT_COLUMNS, Entry
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Failed, Kept, Outcome, Resources


@dataclass(frozen=True, slots=True)
class ReadText:
    """Gives `tags lyrics prompt license source`, what the user says of the `split`, and `metadata`."""

    name: str = "text"

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in (*TEXT_COLUMNS, "metadata", "split")])

    def run(self, entries: Sequence[Entry], resources: Resources) -> Iterator[Outcome]:
        for row, entry in enumerate(entries):
            try:
                if entry.problem:
                    raise InputError(Reason.CORRUPT, entry.uri, entry.problem)
                found = read_text(entry)
            except InputError as error:
                yield Failed(row, error)
            else:
                yield Kept(row, {name: found.get(name) for name in self.schema.names})
            resources.heartbeat(0.0)
