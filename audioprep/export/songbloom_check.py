"""What the fork of SongBloom would stumble over in a folder, mostly without a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audioprep.audio import probe
from audioprep.encoders.checkpoints import load_tensors
from audioprep.engine.commit import read_json
from audioprep.errors import AudioprepError
from audioprep.export.songbloom import DETAILS, LEFT_OUT
from audioprep.export.songbloom_files import PROMPT_RATE
from audioprep.text.songbloom import normalize_lyrics

_KEYS = ("idx", "audio_path", "lyrics", "prompt_wav")


def check(folder: Path, codes: int | None = None, on_rows: Callable[[int], None] = lambda done: None) -> list[str]:
    """Reads all that the trainer would read, but for the recordings themselves.

    Args:
        folder: with `*.jsonl`, made by an export or by hand.
        codes: of the model; None for what the export was made for.
        on_rows: called with the number of songs read.

    Returns:
        The problems, each with its remedy; none where all is well.
    """
    tables = [path for path in sorted(folder.glob("*.jsonl")) if path.name != LEFT_OUT]
    if not tables:
        return [f"{folder}: has no .jsonl with songs. Give a folder that `audioprep export songbloom` has made."]
    details = read_json(folder / DETAILS) or {}
    codes = codes or details.get("codes")
    problems: list[str] = []
    seen: dict[str, str] = {}
    done = 0
    for table in tables:
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{table.name} line {number}"
            problems += [f"{where}: {problem}" for problem in _row(line, folder, details, codes, seen, where)]
            done += 1
            on_rows(done)
    return problems


def _row(
    line: str, folder: Path, details: dict[str, Any], codes: int | None, seen: dict[str, str], where: str
) -> Iterator[str]:
    try:
        row = json.loads(line)
        missing = [key for key in _KEYS if not isinstance(row.get(key), str)]
    except (ValueError, AttributeError) as error:
        yield f"is no JSON object: {error}; export again"
        return
    if missing:
        yield f"lacks {', '.join(missing)}, without which the trainer stops; add it"
        return
    if (before := seen.setdefault(row["idx"], where)) != where:
        yield f"its idx is that of {before}: they would share one cached song; give each its own"
    if not Path(row["audio_path"]).is_file():
        yield f"{row['audio_path']}: is not there; mend the path, or export again"
    sections, found = normalize_lyrics(row["lyrics"])
    wrong = [finding for finding in found if finding.fixed is None or finding.rule in ("spacing", "separator", "tag")]
    if wrong or not sections:
        yield f"its lyrics are not SongBloom's: {wrong[0].rule if wrong else 'no section'}; see `audioprep lint`"
    yield from _prompt(row["prompt_wav"])
    length = None
    if sketch := row.get("sketch_path"):
        try:
            tokens = np.load(sketch) if sketch.endswith(".npy") else load_tensors(Path(sketch))["sketch"].numpy()
        except (OSError, ValueError, KeyError, AudioprepError) as error:
            yield f"{sketch}: cannot be read: {error}; export again"
            return
        length = len(tokens)
        yield from _tokens(sketch, tokens, codes, details.get("block", 1))
    cached = folder / "cache" / f"{row['idx']}.pt"
    if cached.is_file():
        yield from _cached(cached, length, row["lyrics"])
    elif details.get("cache"):
        yield f"{cached}: is not there, so the trainer would encode the song itself; export again"


def _prompt(name: str) -> Iterator[str]:
    try:
        info = probe(name)
    except AudioprepError as error:
        yield f"its prompt {error}; export again"
        return
    if info.sample_rate != PROMPT_RATE:
        yield f"its prompt has {info.sample_rate} Hz, not {PROMPT_RATE}; export again"


def _tokens(name: str, tokens: Any, codes: int | None, block: int) -> Iterator[str]:
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        yield f"{name}: is {tokens.dtype} of shape {tokens.shape}, not whole numbers in a row; export again"
    elif not len(tokens) or len(tokens) % block:
        yield f"{name}: has {len(tokens)} frames, no multiple of {block}; export again"
    elif tokens.min() < 0 or (codes and tokens.max() >= codes):
        yield f"{name}: has tokens from {tokens.min()} to {tokens.max()}, and the model knows {codes}; see --codes"


def _cached(path: Path, length: int | None, lyrics: str) -> Iterator[str]:
    try:
        kept = load_tensors(path)
        shape, tokens = kept["audio_latent"].shape, len(kept["sketch_tokens"])
    except (AudioprepError, KeyError) as error:
        yield f"{path}: cannot be read: {error}; export again"
        return
    if not shape[-1] == tokens == kept["length"] == (length or tokens):
        yield f"{path}: its latents, sketch and length ({shape[-1]}, {tokens}, {kept['length']}) differ; export again"
    if not bool(kept["audio_latent"].isfinite().all()):
        yield f"{path}: has latents that are not finite; encode again"
    if kept["lyrics"] != lyrics:
        yield f"{path}: was made with other lyrics, and these are the ones that count; remove it, or export again"
