"""What was found in a text that a model would take badly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        field: `tags` or `lyrics`.
        line: of the lyrics, from 1; of tags always 1.
        rule: what kind of thing; a short name.
        text: what stands there.
        fixed: what normalizing makes of it (empty: it is left out); None: it takes a person.
    """

    field: str
    line: int
    rule: str
    text: str
    fixed: str | None = None
