"""The picture of `audioprep inspect --plot`: durations, codes, latents; of scores, how often each token occurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from audioprep.symbolic.classes import TokenClass

_COLOUR = "#4477aa"
_LABELS = 24  # below a histogram, that can still be read
Draw = Callable[[Any], None]


def draw_panels(path: Path, panels: Sequence[Draw]) -> None:
    """Saves a picture of panels below each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for draw, axis in zip(panels, figure.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True):
        draw(axis)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def durations_panel(durations: NDArray[np.float64]) -> Draw:
    """How long the items are, in seconds."""

    def draw(axis: Any) -> None:
        axis.hist(durations, bins=50, color=_COLOUR)
        axis.set(xlabel="duration (s)", ylabel="items", title=f"{len(durations)} items")

    return draw


def codes_panel(name: str, counts: Sequence[NDArray[np.int64]]) -> Draw:
    """How evenly each codebook is used; `counts` int64 `[codebook_size]` of each."""

    def draw(axis: Any) -> None:
        for codebook, row in enumerate(counts):
            axis.plot(np.sort(row / max(row.sum(), 1))[::-1], label=f"codebook {codebook}")
        axis.set(xlabel="code, most used first", ylabel="share of frames", yscale="log", title=name)
        axis.legend(ncols=4, fontsize="small")

    return draw


def spread_panel(name: str, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Draw:
    """How the values of each dimension are spread."""

    def draw(axis: Any) -> None:
        axis.errorbar(np.arange(len(mean)), mean, std, fmt=".", color=_COLOUR)
        axis.set(xlabel="dimension", ylabel="mean and standard deviation", title=name)

    return draw


def class_panels(classes: Sequence[TokenClass], counts: Sequence[NDArray[np.int64]]) -> list[Draw]:
    """How often each value of each class occurs; classes of which nothing does are left out."""
    occurring = [(one, counts[one.column][one.ids]) for one in classes]
    return [_class_panel(one, of_class) for one, of_class in occurring if of_class.any()]


def _class_panel(one: TokenClass, counts: NDArray[np.int64]) -> Draw:
    places = np.flatnonzero(counts)
    first, last = int(places[0]), int(places[-1])

    def draw(axis: Any) -> None:
        axis.bar(np.arange(first, last + 1), counts[first : last + 1], width=0.9, color=_COLOUR)
        shown = np.arange(first, last + 1, -(-(last + 1 - first) // _LABELS))
        axis.set_xticks(shown, [one.values[place] for place in shown], rotation=45, ha="right")
        axis.set(ylabel="tokens", title=f"{one.name}: {len(places)} of {len(counts)} values occur")

    return draw
