"""The stage that turns lyrics into phonemes, and the one that gives lyrics without a recording what an item has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import pyarrow as pa
from pydantic import TypeAdapter

from audioprep.corpus.content import ID_LENGTH
from audioprep.corpus.entry import Entry
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.text.g2p.phonemizer import Language, Phonemizer, Settings
from audioprep.text.song_structure import song_structure
from audioprep.text.songbloom import write

_SETTINGS = TypeAdapter(Settings)
_NAMED = 10  # of the things that are wrong with a lyric, in a failure's message

Layout = Literal["lines", "songbloom"]


@dataclass(frozen=True, slots=True)
class Phonemize:
    """Gives one column of phonemes, and beside it `COLUMN_languages` and `COLUMN_unread`.

    Attributes:
        reading: how lyrics are read.
        column: name of the column, and of the stage.
        layout: `lines` as the lyrics have them, or sections as SongBloom writes them; then also `COLUMN_sections`:
            whether they were `given` by the lyrics' tags, `timed`, or `inferred`.
        seconds_per_tag: of SongBloom's tags without singing.
        infer_sections: guess sections that nothing in the lyrics says.
        strict: a lyric of which something cannot be read has failed.
    """

    reading: Settings
    column: str = "phonemes"
    layout: Layout = "lines"
    seconds_per_tag: int = 1
    infer_sections: bool = False
    strict: bool = False

    @property
    def name(self) -> str:
        return self.column

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1, "phonemes": self.origin["phonemes"]}

    @property
    def origin(self) -> dict[str, Any]:
        own = {
            "layout": self.layout,
            "seconds_per_tag": self.seconds_per_tag,
            "infer_sections": self.infer_sections,
            "strict": self.strict,
        }
        return {"phonemes": own | {"reading": _SETTINGS.dump_python(self.reading, mode="json")}}

    @classmethod
    def remade(cls, origin: dict[str, Any], column: str) -> Phonemize:
        """The stage that an earlier run had, from its `origin`."""
        own = origin["phonemes"]
        return cls(**own | {"reading": _SETTINGS.validate_python(own["reading"], strict=False)}, column=column)

    @property
    def uses_gpu(self) -> bool:
        return False

    @property
    def schema(self) -> pa.Schema:
        names = ["", "_languages", "_unread", *(["_sections"] if self.layout == "songbloom" else [])]
        return pa.schema([(self.column + name, pa.string()) for name in names])

    @staticmethod
    def run(
        stages: Sequence[Phonemize], entries: Sequence[Entry], resources: Resources
    ) -> Iterator[tuple[str, Outcome]]:
        readers = [_phonemizer(stage.reading) for stage in stages]
        for row, entry in enumerate(entries):
            if entry.problem:
                continue
            for stage, reader in zip(stages, readers, strict=True):
                try:
                    yield stage.name, Kept(row, stage._columns(entry, reader))
                except InputError as error:
                    yield stage.name, Failed(row, error)
            resources.heartbeat(Beat())

    def _columns(self, entry: Entry, reader: Phonemizer) -> dict[str, str]:
        lyrics = read_text(entry).get("lyrics", "")
        origin = ""
        if self.layout == "songbloom" and lyrics.strip():
            lyrics, origin = self._sections(entry, lyrics)
        found = reader.read(lyrics, _language(entry))
        if found.outside:
            raise InputError(
                Reason.LYRICS,
                entry.uri,
                f"the inventory {self.reading.inventory.name} lacks {_some(found.outside)} (languages: "
                f"{', '.join(found.languages)}); leave --inventory out, or say another --language",
            )
        if self.strict and found.unread:
            raise InputError(Reason.LYRICS, entry.uri, f"cannot be read: {_some(found.unread)}")
        values = (found.text, ",".join(found.languages), " ".join(found.unread), origin)
        return dict(zip(self.schema.names, values, strict=False))

    def _sections(self, entry: Entry, lyrics: str) -> tuple[str, str]:
        structure = song_structure(lyrics, self.seconds_per_tag, infer=self.infer_sections)
        wrong = [
            f"line {found.line}: {found.rule}: {found.text}" for found in structure.findings if found.fixed is None
        ]
        if wrong:
            hint = "" if self.infer_sections else "; --infer-sections guesses sections that nothing says"
            raise InputError(Reason.LYRICS, entry.uri, f"no lyrics for SongBloom: {_some(wrong, '; ')}{hint}")
        return write(structure.sections), structure.origin


@lru_cache(maxsize=2)
def _phonemizer(settings: Settings) -> Phonemizer:
    return Phonemizer(settings)


def _language(entry: Entry) -> Language:
    """What a table's column `language` says, where it is one that can be read."""
    said = json.loads(entry.metadata).get("language") if entry.metadata else None
    known = str(said).lower()[:2] if said else ""
    return known if known in get_args(Language) else "auto"  # pyright: ignore[reportReturnType]


def _some(things: Sequence[str], between: str = " ") -> str:
    more = f"{between}and {len(things) - _NAMED} more" if len(things) > _NAMED else ""
    return between.join(things[:_NAMED]) + more


@dataclass(frozen=True, slots=True)
class LyricItems:
    """Gives `id` (of the lyrics), and zeros where an item with a recording has its length."""

    name: str = "lyric-items"

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
        numbers = [("sample_rate", pa.int32()), ("channels", pa.int32()), ("num_frames", pa.int32())]
        return pa.schema([("id", pa.string()), ("duration", pa.float64()), *numbers])

    @staticmethod
    def run(
        stages: Sequence[LyricItems], entries: Sequence[Entry], resources: Resources
    ) -> Iterator[tuple[str, Outcome]]:
        (stage,) = stages
        for row, entry in enumerate(entries):
            try:
                lyrics = read_text(entry).get("lyrics", "")
            except InputError as error:
                yield stage.name, Failed(row, error)
                continue
            name = hashlib.sha256(lyrics.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]
            facts = {"duration": 0.0, "sample_rate": 0, "channels": 0, "num_frames": 0}
            yield stage.name, Kept(row, {"id": name} | facts)
            resources.heartbeat(Beat())
