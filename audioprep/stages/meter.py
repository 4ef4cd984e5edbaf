"""Measures how long an encoder could have worked, and how long it waited for audio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Meter:
    """A stop watch that starts when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0

    def waiting_for(self, source: Iterable[T]) -> Iterator[T]:
        """Gives what `source` gives; the time that it takes to give it counts as waited."""
        asked = time.perf_counter()
        for found in source:
            self._waited += time.perf_counter() - asked
            yield found
            asked = time.perf_counter()
        self._waited += time.perf_counter() - asked

    def read(self) -> tuple[float, float]:
        """Seconds elapsed and seconds waited since the last reading."""
        now = time.perf_counter()
        read = now - self._start, self._waited
        self._start, self._waited = now, 0.0
        return read
