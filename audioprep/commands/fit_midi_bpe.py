"""`audioprep fit midi-bpe`: a tokenizer of MidiTok, trained on the user's own scores."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from audioprep.commands.base import Console, CorpusSettings, Counter, Summary
from audioprep.commands.midi import miditok_file
from audioprep.corpus.content import local_file
from audioprep.corpus.scan import scan_scores
from audioprep.errors import InputError, Reason, UsageError
from audioprep.storage.fields import PlaceField
from audioprep.storage.places import is_url
from audioprep.storage.publish import publishing_file
from audioprep.symbolic.read import MIDI_SUFFIXES, read_score

logger = logging.getLogger(__name__)


class Settings(CorpusSettings):
    """Settings of `audioprep fit midi-bpe`."""

    out: PlaceField = Field(description="The tokenizer to write (.json), or its URL.")
    tokenizer: str = Field("remi", description="remi, cp or miditok:NAME.")
    config: Path | None = Field(None, description="MidiTok's file of a tokenizer to go on from.")
    tokenizer_settings: dict[str, Any] = Field({}, description="Fields of MidiTok's TokenizerConfig.")
    vocab_size: PositiveInt = Field(10_000, description="Tokens of the trained vocabulary.")
    model: Literal["BPE", "Unigram", "WordPiece"] = Field("BPE", description="BPE, Unigram or WordPiece.")
    overwrite: bool = Field(False, description="Replace an existing file.")


def run(settings: Settings, console: Console) -> Summary:
    """Trains a tokenizer and writes it; does nothing where the file is there.

    Raises:
        UsageError: the tokenizer cannot be trained so, or no score can be read.
    """
    if settings.out.exists() and not settings.overwrite:
        return {"tokenizer": str(settings.out), "already_there": True}
    from audioprep.symbolic.miditok_files import load, saved_text, train

    tokenizer = load(miditok_file(settings.tokenizer, settings.config, settings.tokenizer_settings))
    failed: list[InputError] = []
    with tempfile.TemporaryDirectory(prefix="audioprep-") as folder:
        with console.counter("Reading scores") as reading:
            files = list(_files(settings, Path(folder), failed, reading))
        train(tokenizer, files, settings.vocab_size, settings.model)
    with publishing_file(settings.out) as path:
        path.write_text(saved_text(tokenizer), encoding="utf-8")
    return {
        "tokenizer": str(settings.out),
        "scores": len(files),
        "failed": len(failed),
        "vocab_size": tokenizer.vocab_size,
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    with console.counter("Scanning") as scanning:
        inputs = sum(1 for _ in settings.entries(lambda count: scanning(count, None), scan_scores))
    return {"tokenizer": str(settings.out), "inputs": inputs, "already_there": settings.out.exists()}


def _files(settings: Settings, folder: Path, failed: list[InputError], reading: Counter) -> Iterator[Path]:
    """MIDI files of the scores, those of other formats in `folder`; a broken one is named in the log and left out."""
    count = 0
    for entry in settings.entries(find=scan_scores):
        try:
            with local_file(entry.uri) as path:
                score = read_score(Path(path).read_bytes(), entry.uri)
            if Path(path).suffix.lower() in MIDI_SUFFIXES and not is_url(entry.uri):
                yield Path(path)
            else:
                score.dump_midi(folder / f"{count}.mid")
                yield folder / f"{count}.mid"
        except InputError as error:
            failed.append(error)
            logger.warning("left out: %s", error)
        except OSError as error:
            failed.append(InputError(Reason.UNREADABLE, entry.uri, f"cannot be read: {error.strerror}"))
            logger.warning("left out: %s", failed[-1])
        count += 1
        reading(count, None)
    if count == len(failed):
        what = "no score that can be read" if count else "no scores or MIDI files"
        raise UsageError(f"{', '.join(settings.source)}: holds {what}. See `audioprep fit midi-bpe --help`.")
