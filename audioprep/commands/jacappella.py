"""`audioprep jacappella`: the jaCappella corpus as a shard set, with lyrics as its scores have them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import EncoderChoice, RunSettings, plan_encoders, run_encoders
from audioprep.corpus.jacappella import Audio, Choice, ScoreKind, download, manifest
from audioprep.engine.commit import atomic_path
from audioprep.engine.layout import Layout
from audioprep.errors import UsageError
from audioprep.storage.files import listing, read_bytes
from audioprep.storage.places import Place

MANIFEST = "jacappella.jsonl"


class Settings(RunSettings):
    """Settings of `audioprep jacappella`."""

    source: list[str] = Field(min_length=1, max_length=1, description="Folder of the corpus, to download to or there.")
    download: bool = Field(True, description="Fetch from the Hub what is not there. Otherwise use what is there.")
    audio_type: Audio = Field("lead_vocal", description="Which recording of each song.")
    musicxml_type: ScoreKind = Field("svs", description="Which score the lyrics come from: svs, romaji, default.")
    subsets: list[str] = Field([], description="Genres. Default: all.")
    prompt_sec: float = Field(10.0, gt=0, description="Length of the prompts that an export cuts.")
    clean_japanese: bool = Field(False, description="Take out of lyrics what is neither Japanese nor punctuation.")
    seed: int = Field(0, ge=0, description="Of the splits, which are by song.")
    encoders: list[EncoderChoice] = Field(
        [EncoderChoice.model_validate({"encoder": "mel-rvq"})],
        min_length=1,
        description="They share what they can of the decoding.",
    )


def run(settings: Settings, console: Console) -> Summary:
    """Writes the manifest `OUT/jacappella.jsonl`, and encodes what it names; see `run_encoders`.

    Raises:
        UsageError: see `download` and `manifest`; or OUT holds another choice of the corpus.
    """
    if settings.download:
        download(Path(settings.source[0]).expanduser(), _choice(settings))
    rows = _rows(settings)
    _write(settings.out, rows, settings.overwrite)
    return run_encoders(_with_manifest(settings), settings.encoders, console) | _describe(rows)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do; downloads and writes nothing."""
    rows = _rows(settings)
    done = MANIFEST in listing(settings.out)
    ahead = plan_encoders(_with_manifest(settings), settings.encoders, console) if done else {"out": str(settings.out)}
    return ahead | _describe(rows)


def _choice(settings: Settings) -> Choice:
    return Choice(
        audio=settings.audio_type,
        score=settings.musicxml_type,
        subsets=tuple(settings.subsets),
        clean_japanese=settings.clean_japanese,
        prompt_seconds=settings.prompt_sec,
    )


def _rows(settings: Settings) -> list[dict[str, Any]]:
    folder = Path(settings.source[0]).expanduser()
    return list(manifest(folder, _choice(settings), settings.splits, settings.seed))


def _with_manifest(settings: Settings) -> Settings:
    return settings.model_copy(update={"source": [str(settings.out / MANIFEST)]})


def _write(out: Place, rows: Sequence[dict[str, Any]], overwrite: bool) -> None:
    path, layout = out / MANIFEST, Layout(out)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with contextlib.suppress(FileNotFoundError):
        before = read_bytes(path)
        if before == data:
            return
        if not overwrite:
            raise UsageError(f"{path}: says something else: another choice or copy of the corpus; use --overwrite")
    layout.claim()
    with atomic_path(path, layout.scratch) as temporary:
        temporary.write_bytes(data)
    layout.sweep()


def _describe(rows: Sequence[dict[str, Any]]) -> Summary:
    return {
        "songs": len(rows),
        "with_lyrics": sum(1 for row in rows if row.get("lyrics")),
        "with_scat": sum(1 for row in rows if row.get("scat")),
        "bad_scores": sum(1 for row in rows if "problem" in row),
        "syllables": sum(row.get("syllables", 0) for row in rows),
        "syllables_lost": sum(row.get("syllables_lost", 0) for row in rows),
    }
