"""The stage that reads tags, lyrics and other text: from manifests and from the files beside the audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from audioprep.corpus.entry import TEXT_COLUMNS, Entry
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources


@dataclass(frozen=True, slots=True)
class ReadText:
    """Gives `tags lyrics prompt license source`, what the user says of the `split`, and `metadata`."""

    name: str = "text"

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    @property
    def origin(self) -> dict[str, Any]:
        return {}

    @property
    def uses_gpu(self) -> bool:
        return False

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in (*TEXT_COLUMNS, "metadata", "split")])

    @staticmethod
    def run(
        stages: Sequence[ReadText], entries: Sequence[Entry], resources: Resources
    ) -> Iterator[tuple[str, Outcome]]:
        (stage,) = stages
        for row, entry in enumerate(entries):
            yield stage.name, stage._read(row, entry)
            resources.heartbeat(Beat())

    def _read(self, row: int, entry: Entry) -> Outcome:
        try:
            if entry.problem:
                raise InputError(Reason.CORRUPT, entry.uri, entry.problem)
            found = read_text(entry)
        except InputError as error:
            return Failed(row, error)
        return Kept(row, {name: found.get(name) for name in self.schema.names})
