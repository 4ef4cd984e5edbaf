"""What the ids of a tokenizer of scores mean, class by class: tempos, chords, pitches, durations …"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.tokenizers import EMOPIA
from audioprep.symbolic.vocabulary import CONTI, IGNORE, Value, full_vocabulary


@dataclass(frozen=True, slots=True)
class TokenClass:
    """Ids of one kind.

    Attributes:
        name: such as `chord`, or a type of MidiTok's tokens, `Pitch`.
        column: of the tokens `[F, K]`.
        ids: int64 `[n]`, in the order in which they are to be shown.
        values: what each of them says.
    """

    name: str
    column: int
    ids: NDArray[np.int64]
    values: tuple[str, ...]


def token_classes(spec: Mapping[str, Any], saved: str) -> list[TokenClass]:
    """The classes of a column of tokens.

    Args:
        spec: of the tokenizer, as `TokenizerSpec.to_dict` gives it.
        saved: for MidiTok: the text of its `tokenizer.json`.

    Raises:
        UsageError: MidiTok does not read that file.
    """
    if spec["name"] == EMOPIA:
        classes = full_vocabulary(len(spec["vocabulary_sizes"]) == 9)
        return [_class(name, column, _said(values)) for column, (name, values) in enumerate(classes.items())]
    from audioprep.symbolic.miditok_files import load

    tokenizer = load(saved)
    columns = tokenizer.vocab if tokenizer.is_multi_voc else [tokenizer.vocab]
    found: list[TokenClass] = []
    for column, (vocabulary, size) in enumerate(zip(columns, spec["vocabulary_sizes"], strict=True)):
        tokens = sorted((name.partition("_")[0], id_, name.partition("_")[2]) for name, id_ in vocabulary.items())
        for kind, of_kind in groupby(tokens, key=lambda token: token[0]):
            found.append(_class(kind, column, [(id_, value) for _, id_, value in of_kind]))
        if size > len(vocabulary):  # a trained tokenizer: tokens that stand for several
            found.append(_class("learned", column, [(id_, str(id_)) for id_ in range(len(vocabulary), size)]))
    return found


def _said(values: Sequence[Value]) -> Iterable[tuple[int, str]]:
    """Ids and values of a class of EMOPIA's, without those by which it says nothing."""
    for id_, value in enumerate(values):
        if value not in (IGNORE, CONTI):
            yield id_, re.sub(r"^(?:Tempo|Beat|Note_[A-Z][a-z]+)_", "", str(value))


def _class(name: str, column: int, ids_and_values: Iterable[tuple[int, str]]) -> TokenClass:
    """Numbers are sorted, behind what is none."""
    ids, values = zip(*sorted(ids_and_values, key=lambda pair: _number(pair[1])), strict=True)
    return TokenClass(name, column, np.array(ids, np.int64), values)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("-inf")
