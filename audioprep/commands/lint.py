"""`audioprep lint`: what a model would take badly in the tags and lyrics of a corpus, before anything is computed."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from audioprep.commands.base import Console, CorpusSettings, Summary
from audioprep.corpus.entry import Entry, is_lyric_file
from audioprep.corpus.lyrics import scan_lyrics
from audioprep.corpus.sidecars import read_text
from audioprep.engine.commit import atomic_path
from audioprep.errors import InputError, Reason, UsageError
from audioprep.storage.files import remove_folder
from audioprep.text.findings import Finding
from audioprep.text.heartmula import normalize_lyrics, normalize_tags
from audioprep.text.song_structure import song_structure
from audioprep.text.songbloom import unreadable_lines

_SHOWN = 20


class Settings(CorpusSettings):
    """Settings of `audioprep lint`."""

    target: Literal["heartmula", "songbloom"] = Field("heartmula", description="The model that shall read the texts.")
    report: Path | None = Field(None, description="Write every finding here, a JSON object a line.")


def run(settings: Settings, console: Console) -> Summary:
    """Reads the texts of a corpus, and counts what is wrong with them; no audio is decoded, no text is changed.

    Raises:
        UsageError: a source does not exist or holds no audio, or a manifest has no column with paths.
    """
    normalized, open_ = Tally[str](), Tally[str]()
    problems: list[str] = []
    items = clean = 0
    with console.counter("Reading texts") as reading, _report(settings.report) as write:
        for items, entry in enumerate(_entries(settings), start=1):
            findings = list(_findings(entry, settings.target))
            clean += not findings
            for finding in findings:
                (open_ if finding.fixed is None else normalized)[finding.rule] += 1
                if finding.fixed is None and len(problems) < _SHOWN:
                    problems.append(
                        f"{entry.uri}: {finding.field}, line {finding.line}: {finding.rule}: {finding.text}"
                    )
                write(entry, finding)
            reading(items, None)
    if not items:
        raise UsageError(f"{', '.join(settings.source)}: holds no audio files with texts beside them, and no lyrics")
    if (unseen := open_.total() - len(problems)) > 0:
        problems.append(f"and {unseen} more" + ("" if settings.report else ": --report FILE lists them all"))
    return {
        "items": items,
        "clean": clean,
        "mended_by_normalizing": dict(normalized.most_common()),
        "to_be_mended": dict(open_.most_common()),
        **({"report": str(settings.report)} if settings.report else {}),
        "problems": problems,
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would read."""
    return {"items": sum(1 for _ in _entries(settings)), "target": settings.target}


def _entries(settings: Settings) -> Iterator[Entry]:
    """The recordings behind the sources; where there are none, the lyrics."""
    found = settings.entries()
    first = next(found, None)
    return chain([first], found) if first else settings.entries(find=scan_lyrics)


def _findings(entry: Entry, target: str) -> Iterator[Finding]:
    try:
        if entry.problem:
            raise InputError(Reason.CORRUPT, entry.uri, entry.problem)
        text = read_text(entry)
    except InputError as error:
        yield Finding("text", 1, "unreadable", error.detail)
        return
    lyrics = text.get("lyrics", "")
    if target == "songbloom":
        yield from song_structure(lyrics).findings
        yield from unreadable_lines(lyrics)
    else:
        if not is_lyric_file(entry.uri):
            yield from normalize_tags(text.get("tags", ""))[1]
        yield from normalize_lyrics(lyrics)[1]


@contextmanager
def _report(path: Path | None) -> Iterator[Callable[[Entry, Finding], None]]:
    """Gives what writes a finding into the report, if there is one; it is there whole or not at all."""
    if path is None:
        yield lambda entry, finding: None
        return
    scratch = path.with_name(path.name + ".scratch")
    with atomic_path(path, scratch) as temporary, temporary.open("w", encoding="utf-8") as file:

        def write(entry: Entry, finding: Finding) -> None:
            file.write(json.dumps({"uri": entry.uri} | asdict(finding), ensure_ascii=False) + "\n")

        yield write
    remove_folder(scratch)
