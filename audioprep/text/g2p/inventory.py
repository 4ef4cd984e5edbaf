"""The phonemes that a model knows, and how those of the readers are written with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from audioprep.errors import UsageError
from audioprep.text.g2p import chinese, english

_JAPANESE = "I N U a b by ch cl d dy e f g gy h hy i j k ky m my n ny o p py r ry s sh t ts u v w y z"
_OTHERS = "! ? … , . - SP SP2 SP3 UNK _ ER IH"
TAGS = ("[intro]", "[outro]", "[bridge]", "[inst]", "[verse]", "[chorus]", "[silence]")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The symbols that a model has, and how others are written with them.

    Attributes:
        name: of the inventory, or the file that it was read from.
        symbols: what the model knows, sorted; None: everything.
        written: symbols that the model lacks, as a row of such that it has.
    """

    name: str
    symbols: tuple[str, ...] | None
    written: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def write(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """The symbols in the model's own."""
        if not self.written:
            return symbols
        table = dict(self.written)
        return tuple(own for symbol in symbols for own in table.get(symbol, (symbol,)))

    def lacks(self, symbols: tuple[str, ...]) -> list[str]:
        """Those of the symbols that the model does not know, each once."""
        if self.symbols is None:
            return []
        known = _as_set(self.symbols)
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in known]


@lru_cache(maxsize=4)
def _as_set(symbols: tuple[str, ...]) -> frozenset[str]:
    return frozenset(symbols)


SONGBLOOM = Inventory(
    "songbloom",
    tuple(
        sorted(
            {*chinese.INITIALS, *_JAPANESE.split(), *_OTHERS.split(), *TAGS, *english.PHONEMES}
            | {final + tone for final in chinese.FINALS for tone in "12345"}
        )
    ),
    # Four onsets of loanwords, and three vowels that are devoiced once in a blue moon.
    (
        *((onset, tuple(onset)) for onset in ("kw", "gw", "ty", "fy")),
        *((vowel.upper(), (vowel,)) for vowel in "aeo"),
    ),
)
"""SongBloom's own (`symbols` of its `phoneme` lyric processor, and its tags), as of December 2025.

A released model reads `vocab_g2p.yaml` from beside its weights: give that file to be sure.
"""

ANY = Inventory("any", None)


def find_inventory(name: str) -> Inventory:
    """`any`, `songbloom`, or a file: a YAML list such as SongBloom's `vocab_g2p.yaml`, or text with a symbol a line.

    Raises:
        UsageError: it is neither, or cannot be read.
    """
    known = {inventory.name: inventory for inventory in (ANY, SONGBLOOM)}
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    try:
        symbols = _listed(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--inventory {name}: is none of {', '.join(known)}, nor a file with symbols: {error}"
        ) from error
    return Inventory(name, symbols, SONGBLOOM.written)


def _listed(path: Path) -> tuple[str, ...]:
    import yaml

    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        return tuple(sorted({*filter(None, text.splitlines())}))
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(re.sub(r"\s+", " ", str(error))) from error
    if not isinstance(found, list) or not all(isinstance(symbol, str) for symbol in found):
        raise ValueError("it holds no list of symbols")
    return tuple(sorted(set(found)))
