"""The stage that reads tags, lyrics and other text: from manifests and from the files beside the audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from audioprep.corpus.entry import TEXT_COLUMNS, Entry
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.storage.places import is_url

TEXTS_AHEAD = 16  # of a store, fetched side by side


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
        with ThreadPoolExecutor(TEXTS_AHEAD) as pool:
            # Local files are read as they are asked for; in a store each one takes its time.
            of_store = any(is_url(entry.uri) for entry in entries)
            read = pool.map if of_store else map
            for outcome in read(stage._read, range(len(entries)), entries):
                yield stage.name, outcome
                resources.heartbeat(Beat())

    def _read(self, row: int, entry: Entry) -> Outcome:
        try:
            if entry.problem:
                raise InputError(Reason.CORRUPT, entry.uri, entry.problem)
            found = read_text(entry)
        except InputError as error:
            return Failed(row, error)
        return Kept(row, {name: found.get(name) for name in self.schema.names})
