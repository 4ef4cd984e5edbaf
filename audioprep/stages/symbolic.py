"""The stage that turns scores and MIDI into tokens."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from audioprep.audio.source import raise_os_error
from audioprep.corpus.content import ID_LENGTH, local_file
from audioprep.corpus.entry import Entry
from audioprep.errors import InputError, Reason
from audioprep.shards.columns import array_type
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.stages.isolation import Isolation
from audioprep.symbolic.names import read_name
from audioprep.symbolic.read import read_score, seconds_of_score
from audioprep.symbolic.tokenizers import EMOPIA, TokenizerSpec, load_tokenizer

MAX_BYTES = 64 * 2**20
ISOLATED_SECONDS = 120.0  # for one file, where it is read in a process of its own
COLLECT_EVERY = 64  # files


@dataclass(frozen=True, slots=True)
class TokenizeScores:
    """Gives `id duration`, one column of tokens, `num_frames`, `notes meters song`, and what its tokenizer finds out.

    Attributes:
        tokenizer: `emopia-cp` or `miditok`.
        tokenizer_settings: as `load_tokenizer` takes them.
        saved: for MidiTok: the text of its file.
        spec: of the tokenizer.
        column: name of the column, and of the stage.
        one_stream: whether the tracks are in one sequence; else `track_frames` says how long each of theirs is.
    """

    tokenizer: str
    tokenizer_settings: dict[str, Any]
    saved: str
    spec: TokenizerSpec
    column: str
    one_stream: bool = True

    @property
    def name(self) -> str:
        return self.column

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1, "tokenizer": self.spec.to_dict()}

    @property
    def origin(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "tokenizer_settings": self.tokenizer_settings}

    @property
    def uses_gpu(self) -> bool:
        return False

    @property
    def schema(self) -> pa.Schema:
        size = max(self.spec.vocabulary_sizes)
        ids = pa.uint8() if size <= 2**8 else pa.uint16() if size <= 2**16 else pa.int32()
        fields = [
            ("id", pa.string()),
            ("duration", pa.float64()),
            ("sample_rate", pa.int32()),
            ("channels", pa.int32()),
            (self.column, array_type(ids, len(self.spec.vocabulary_sizes))),
            ("num_frames", pa.int32()),
            ("notes", pa.int32()),
            ("meters", pa.string()),
            ("song", pa.string()),
        ]
        if not self.one_stream:
            fields.append(("track_frames", array_type(pa.int32(), 1)))
        if self.tokenizer == EMOPIA:
            fields += [("emotion", pa.int32()), ("key", pa.string())]
        return pa.schema(fields)

    @staticmethod
    def run(
        stages: Sequence[TokenizeScores], entries: Sequence[Entry], resources: Resources
    ) -> Iterator[tuple[str, Outcome]]:
        isolation = Isolation(TokenizeScores.encode, resources.isolated, ISOLATED_SECONDS)
        with isolation as process, _few_collections():
            for row, entry in enumerate(entries):
                if entry.problem:
                    continue
                for stage in stages:
                    yield stage.name, process(stage, row, entry)
                if row % COLLECT_EVERY == 0:
                    gc.collect()
                resources.heartbeat(Beat())

    def encode(self, row: int, entry: Entry) -> Outcome:
        """Reads one file and tokenizes it."""
        settings = tuple(sorted(self.tokenizer_settings.items()))
        tokenizer = load_tokenizer(self.tokenizer, settings, self.saved)
        try:
            data = _read(entry.uri)
            score = read_score(data, entry.uri)
            seconds = seconds_of_score(score)
            meters = {f"{meter.numerator}/{meter.denominator}" for meter in score.time_signatures}
            notes = score.note_num()
            found = tokenizer.encode(score, entry.uri)
        except InputError as error:
            return Failed(row, error)
        columns = {
            "id": hashlib.sha256(data).hexdigest()[:ID_LENGTH],
            "duration": seconds,
            "sample_rate": None,
            "channels": None,
            self.column: found.tokens,
            "num_frames": len(found.tokens),
            "notes": notes,
            "meters": ",".join(sorted(meters)),
            "song": read_name(entry.uri).song,
            "track_frames": found.track_frames,
            "emotion": found.emotion,
            "key": found.key,
        }
        return Kept(row, {name: columns[name] for name in self.schema.names})


def _read(uri: str) -> bytes:
    """
    Raises:
        InputError: there is no such file, it cannot be read, or it is far larger than scores are.
        SystemFault: the machine is at fault.
    """
    with local_file(uri) as path:
        try:
            if os.path.getsize(path) > MAX_BYTES:
                raise InputError(Reason.UNSUPPORTED, uri, f"is larger than {MAX_BYTES >> 20} MiB: is it a score?")
            # A fifo would be waited for; nothing is read of what is no file.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                return file.read()
        except OSError as error:
            raise_os_error(error, uri)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Without the garbage collector's own rhythm: tokenizers make many objects, hardly any of them in cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
