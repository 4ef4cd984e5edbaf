"""Lyrics with times, as LRC files have them: `[01:23.45]A line`."""

from __future__ import annotations

import re
from typing import NamedTuple

_STAMP = re.compile(r"\s*\[(\d{1,3}):(\d{1,2}(?:[.:]\d{1,3})?)\]")


class Line(NamedTuple):
    """One line that is sung, with the unsung ones (`[Chorus]`, empty) before it, and when it begins."""

    seconds: float
    text: str


def timed_lines(lyrics: str) -> list[Line] | None:
    """The lines of timed lyrics in the order in which they are sung; None where the lyrics have no times.

    A line with several stamps is sung several times. A line without belongs to the next that has one, and to the last
    where none follows.
    """
    lines: list[Line] = []
    before: list[str] = []
    for line in lyrics.splitlines():
        times: list[float] = []
        while stamp := _STAMP.match(line):
            times.append(60 * int(stamp[1]) + float(stamp[2].replace(":", ".")))
            line = line[stamp.end() :]
        before.append(line.strip())
        if times:
            text = "\n".join(before)
            lines += [Line(seconds, text) for seconds in times]
            before = []
    if not lines:
        return None
    if before:
        lines[-1] = Line(lines[-1].seconds, "\n".join([lines[-1].text, *before]))
    return sorted(lines, key=lambda line: line.seconds)


def sung_between(lines: list[Line], begin: float, end: float) -> str:
    """The text of the lines that begin in `[begin, end)`, in seconds, without their times."""
    return "\n".join(line.text for line in lines if begin <= line.seconds < end).strip()
