"""The lines of lyrics that name a section and are not sung: `[Verse 2: quiet]`, `(final chorus)`, `サビ:`."""

from __future__ import annotations

import re

SECTIONS = ("intro", "verse", "prechorus", "chorus", "bridge", "outro")
INSTRUMENTAL = "inst"

_NAMES = {name: name for name in SECTIONS} | {
    "opening": "intro", "イントロ": "intro", "前奏": "intro",
    "verso": "verse", "estrofa": "verse", "strophe": "verse", "couplet": "verse", "aメロ": "verse", "主歌": "verse",
    "build": "prechorus", "bメロ": "prechorus", "导歌": "prechorus", "precoro": "prechorus", "prerefrain": "prechorus",
    "hook": "chorus", "refrain": "chorus", "refrão": "chorus", "refrao": "chorus", "coro": "chorus",
    "estribillo": "chorus", "postchorus": "chorus", "サビ": "chorus", "副歌": "chorus",
    "puente": "bridge", "ponte": "bridge", "pont": "bridge", "cメロ": "bridge", "桥段": "bridge",
    "ending": "outro", "coda": "outro", "アウトロ": "outro", "尾奏": "outro", "後奏": "outro",
    "inst": INSTRUMENTAL, "instrumental": INSTRUMENTAL, "solo": INSTRUMENTAL, "break": INSTRUMENTAL,
    "interlude": INSTRUMENTAL, "間奏": INSTRUMENTAL, "间奏": INSTRUMENTAL, "ソロ": INSTRUMENTAL,
}  # fmt: skip
# In brackets, before a colon, or one of the six names alone.
_HEADING = re.compile(
    rf"\[([^\]]*)\]|[(（]([^)）]*)[)）]|([^:：]*)[:：]|((?:{'|'.join(SECTIONS)}|pre-chorus) ?\d*)", re.IGNORECASE
)


def section_of(line: str) -> str | None:
    """The section that a line names: one of `SECTIONS` or `INSTRUMENTAL`; None where the line names none."""
    heading = _HEADING.fullmatch(line)
    if not heading:
        return None
    words = next(filter(None, heading.groups()), "")
    name = name_of(words)
    # `(break my heart)` is sung.
    return None if name == INSTRUMENTAL and not heading[1] and len(words.split()) > 2 else name


def name_of(heading: str) -> str | None:
    """The section that a heading without its brackets stands for, such as `Verse 2: quiet` or `final chorus`."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(pre|post)[- ]", r"\1", heading.lower()))
    return next((_NAMES[word] for word in (*words[:1], *words[-1:]) if word in _NAMES), None)
