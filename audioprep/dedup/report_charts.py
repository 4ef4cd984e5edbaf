"""The charts of the report: SVG as text, in the page's own colours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BARS = 48
_WIDTH, _HEIGHT = 720, 240
_LEFT, _TOP, _BOTTOM = 66, 32, 34  # margins for labels


def similarity_histogram(similarities: NDArray[np.float64], threshold: float) -> str:
    """How many pairs are how alike, on a logarithmic scale, with the threshold as a line.

    Args:
        similarities: of all pairs that were found, float64 `[n]`.
        threshold: it lies between two bars.
    """
    low, high = float(min(similarities.min(initial=threshold), threshold - 0.01)), float(similarities.max(initial=1.0))
    step = (high - low) / _BARS
    edges = threshold + step * np.arange(math.floor((low - threshold) / step), math.ceil((high - threshold) / step) + 1)
    # What is searched begins at an edge, which rounding must not put above it.
    counts, _ = np.histogram(similarities.clip(edges[0], edges[-1]), edges)
    top = math.log1p(max(int(counts.max()), 1))

    def x(value: float) -> float:
        return _LEFT + (value - edges[0]) / (edges[-1] - edges[0]) * (_WIDTH - _LEFT - 12)

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - math.log1p(count) / top * (_HEIGHT - _TOP - _BOTTOM)

    parts: list[str] = []
    for count in (10**power for power in range(7) if 10**power <= max(counts.max(), 1)):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(count):.1f}H{_WIDTH - 12}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 8}" y="{y(count) + 4:.1f}">{count:,}</text>')
    for left, right, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        if count:
            side = "drop" if left >= threshold - step / 2 else "stay"
            title = f"<title>{left:.4f} to {right:.4f}: {count:,} {_plural(count, 'pair')}</title>"
            box = f'x="{x(left) + 0.5:.1f}" y="{y(count):.1f}" width="{x(right) - x(left) - 1:.1f}"'
            parts.append(f'<rect class="{side}" {box} height="{y(0) - y(count):.1f}">{title}</rect>')
    parts.append(f'<path class="axis" d="M{_LEFT} {y(0):.1f}H{_WIDTH - 12}"/>')
    parts += [
        f'<text class="middle" x="{x(value):.1f}" y="{_HEIGHT - 14}">{value:g}</text>'
        for value in _ticks(edges[0], edges[-1])
    ]
    parts.append(f'<path class="threshold" d="M{x(threshold):.1f} {_TOP - 6}V{y(0):.1f}"/>')
    parts.append(f'<text class="strong middle" x="{x(threshold):.1f}" y="{_TOP - 9}">{threshold:g}</text>')
    label = f"{len(similarities):,} {_plural(len(similarities), 'pair')} by similarity; the threshold is {threshold:g}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def group_sizes(sizes: Sequence[int]) -> str:
    """How many groups have how many recordings: rows of a table; sizes from 5 on are put together by doubling."""
    counts = Counter(size if size <= 4 else 4 + math.ceil(math.log2(size / 4)) for size in sizes)
    most = max(counts.values(), default=1)
    rows = []
    for number in sorted(counts):
        size = str(number) if number <= 4 else f"{2 ** (number - 3) + 1} to {2 ** (number - 2)}"
        bar = f'<i style="width:{100 * counts[number] / most:.1f}%"></i>'
        rows.append(f"<tr><th>{size}</th><td>{bar}</td><td>{counts[number]:,}</td></tr>")
    return "".join(rows) or "<tr><td>There are no groups.</td></tr>"


def _ticks(low: float, high: float) -> list[float]:
    """Some four to ten round numbers between two."""
    step = 10 ** math.floor(math.log10(high - low))
    step = next(size for size in (step / 5, step / 2, step) if (high - low) / size <= 10)
    return [round(number * step, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
