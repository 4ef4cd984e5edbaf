"""Tags and lyrics as HeartMuLa knows them.

Tags are joined by commas without spaces. Lyrics have section lines of six names, and a blank line before each;
whatever else stands in them is sung, finer tags too (HeartMuLa's issue 42). Letters' case does not matter: trainer
and model make all of it lower-case.
"""

from __future__ import annotations

import ast
import re
import unicodedata

from audioprep.text.findings import Finding
from audioprep.text.sections import INSTRUMENTAL, section_of
from audioprep.text.sections import SECTIONS as NAMES

SECTIONS = tuple(map(str.capitalize, NAMES))
LONGEST_TAG = 5  # words; more of them are a sentence

_SECTION_LINES = {f"[{name}]" for name in SECTIONS}
_BRACKETS = str.maketrans("【】［］〔〕", "[][][]")
_TIMESTAMP = re.compile(r"[\[<]\d+:\d\d(?:[.:]\d+)?[\]>] ?")
_LRC_HEAD = re.compile(r"\[(?:ar|ti|al|au|by|la|length|offset|re|ve|#): ?[^\]]*\]", re.IGNORECASE)
_INLINE = re.compile(r" ?\[[^\]]*\] ?")
_REPEAT = re.compile(r"[(\[]? ?(?:[x×] ?\d+|\d+ ?[x×]|repeat(?: \d+)?|bis) ?[)\]]?$", re.IGNORECASE)
_NO_SINGING = re.compile(r"[\[(]?(?:instrumental|inst|no lyrics|no vocals?|n/?a|none)[\])]?\.?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?[\d.,]+(?:e[+-]?\d+)?|nan|inf", re.IGNORECASE)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")


def normalize_tags(tags: str) -> tuple[str, list[Finding]]:
    """Makes `piano,happy,female voice` of what a person wrote.

    Returns:
        The tags, and what was found in them.
    """
    found: list[Finding] = []

    def changed(rule: str, before: str, after: str) -> str:
        if before != after:
            found.append(Finding("tags", 1, rule, before, after))
        return after

    text = changed("characters", tags, _clean(tags))
    text = changed("list", text, _joined_list(text))
    text = changed("wrapped", text, re.sub(r"</?tags?>", "", text, flags=re.IGNORECASE))
    text = changed("separator", text, re.sub(r"[;|\n、，；]|\s#", ",", text))
    names = (re.sub(r"\s+", " ", name).strip(" #\"'.") for name in text.split(","))
    text = changed("spaces", text, ",".join(filter(None, names)))
    unique: dict[str, str] = {}
    for name in text.split(","):
        unique.setdefault(name.lower(), name)
    text = changed("repeated", text, ",".join(unique.values()))
    if not text:
        found.append(Finding("tags", 1, "empty", tags))
    elif _NUMBER.fullmatch(text):
        found.append(Finding("tags", 1, "numeric", text))
    found += [Finding("tags", 1, "sentence", name) for name in unique.values() if len(name.split()) > LONGEST_TAG]
    return text, found


def normalize_lyrics(lyrics: str) -> tuple[str, list[Finding]]:
    """Leaves of lyrics what is sung, and section lines that the model knows, with a blank line before each.

    Returns:
        The lyrics, empty for a piece without singing, and what was found in them.
    """
    if _NO_SINGING.fullmatch(lyrics.strip()):
        return "", [Finding("lyrics", 1, "instrumental", lyrics, "")]
    found: list[Finding] = []
    lines: list[str] = []
    for number, line in enumerate(lyrics.splitlines(), start=1):
        kept, rules = _line(line)
        found += [Finding("lyrics", number, *rule) for rule in rules]
        if kept in _SECTION_LINES and lines and lines[-1]:
            lines.append("")
        if kept or (lines and lines[-1] and not line.strip()):
            lines.append(kept)
    text = "\n".join(lines).strip()
    if _NUMBER.fullmatch(text):
        found.append(Finding("lyrics", 1, "numeric", text))
    elif text and not _SECTION_LINES.intersection(lines):
        found.append(Finding("lyrics", 1, "no-sections", lines[0]))
    return text, found


def _line(line: str) -> tuple[str, list[tuple[str, str, str | None]]]:
    """One line of lyrics, normalized, and what was found: rule, what stood there, what stands there now."""
    found: list[tuple[str, str, str | None]] = []
    text = _clean(line).translate(_BRACKETS)
    if text != line.strip():
        found.append(("characters", line, text))
    timeless = _LRC_HEAD.sub("", _TIMESTAMP.sub("", text)).strip()
    if timeless != text:
        found.append(("time", text, timeless))
    name = section_of(timeless)
    if name and name != INSTRUMENTAL:
        section = f"[{name.capitalize()}]"
        if section != timeless:
            found.append(("section", timeless, section))
        return section, found
    sung = re.sub(r"\s+", " ", _INLINE.sub(" ", timeless)).strip()
    if sung != timeless:
        found.append(("inner-tag", timeless, sung))
        timeless = sung
    if _REPEAT.search(timeless):
        found.append(("repeat-mark", timeless, None))
    return timeless, found


def _clean(text: str) -> str:
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\u00a0", " ").strip()


def _joined_list(text: str) -> str:
    """Joins what is written as a list of JSON or Python."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text[1:-1]
    return ",".join(map(str, names))
