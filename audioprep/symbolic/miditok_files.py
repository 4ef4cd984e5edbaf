"""MidiTok's tokenizers and the files it saves them in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioprep.errors import UsageError, nearest

# What the short names stand for: every track in one stream, with tempos and programs.
SHORT_NAMES = {"remi": "REMI", "cp": "CPWord"}
_DEFAULTS = {"use_tempos": True, "use_programs": True}
# Of single tokenizers; MidiTok's configuration takes them, and does not list them.
_MORE_FIELDS = (
    "max_bar_embedding", "drum_pitch_range", "base_tokenizer", "use_microtiming", "ticks_per_quarter",
    "max_microtiming_shift", "num_microtiming_bins",
)  # fmt: skip


def new_tokenizer(name: str, settings: dict[str, Any]) -> str:
    """The text of MidiTok's file of an untrained tokenizer.

    Args:
        name: `remi`, `cp`, or `miditok:NAME` with the name of a class of MidiTok.
        settings: fields of MidiTok's `TokenizerConfig`, in the form in which its file has them.

    Raises:
        UsageError: no such tokenizer or field, or MidiTok refuses them.
    """
    import miditok

    known = miditok.tokenizations.__all__
    class_name = SHORT_NAMES.get(name, name.removeprefix("miditok:"))
    if class_name not in known:
        hint = nearest(class_name, known)
        raise UsageError(f"--tokenizer {name}: MidiTok has no {class_name}.{hint} Known: {', '.join(known)}.")
    config = miditok.TokenizerConfig().to_dict(serialize=True)
    for field in settings:
        if field not in (*config, *_MORE_FIELDS):
            hint = nearest(field, (*config, *_MORE_FIELDS))
            raise UsageError(f"--set {field}: MidiTok's configuration has no such field.{hint}")
    config |= (_DEFAULTS if name in SHORT_NAMES else {}) | settings
    return saved_text(load(json.dumps({"config": config, "tokenization": class_name})))


def load(saved: str) -> Any:
    """The tokenizer (`miditok.MusicTokenizer`) that a file's text describes.

    Raises:
        UsageError: it describes none, or one that MidiTok refuses.
    """
    import miditok

    try:
        name = json.loads(saved)["tokenization"]
        if name not in miditok.tokenizations.__all__:
            raise ValueError(f"no tokenizer of MidiTok is called {name}")
        kind = getattr(miditok, name)
        with tempfile.TemporaryDirectory(prefix="audioprep-") as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_text(saved, encoding="utf-8")
            return kind(params=path)
    except Exception as error:  # MidiTok raises whatever its fields lead to
        raise UsageError(f"MidiTok cannot make this tokenizer: {type(error).__name__}: {error}") from error


def saved_text(tokenizer: Any) -> str:
    """What MidiTok's `save` would write of a tokenizer."""
    return json.dumps(tokenizer.to_dict(), indent=4)


def train(tokenizer: Any, files: Sequence[Path], vocab_size: int, model: str) -> None:
    """Trains a tokenizer on MIDI files.

    Raises:
        UsageError: this tokenizer cannot be trained, or has as many tokens already.
    """
    if tokenizer.is_multi_voc:
        raise UsageError(f"{type(tokenizer).__name__}: has a vocabulary for each part of a word; none can be trained")
    if vocab_size <= len(tokenizer.vocab):
        raise UsageError(f"--vocab-size {vocab_size}: the tokenizer has {len(tokenizer.vocab)} tokens; ask for more")
    tokenizer.train(vocab_size=vocab_size, model=model, files_paths=list(files))
