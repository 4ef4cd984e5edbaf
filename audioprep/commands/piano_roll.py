"""A picture of a score and of what its tokens say: a piano roll, the one over the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BARS_A_ROW = 8
MAX_ROWS = 12  # more than that nobody looks at; the rest is in the MIDI file
QUARTERS_A_BAR = 4


def draw_piano_roll(original: Any, decoded: Any, path: Path) -> None:
    """Saves a picture: notes of the score filled, those of the tokens as frames, their chords and tempos above.

    Args:
        original: a score of symusic.
        decoded: what the tokens of that score say, likewise; its ticks may be others.
        path: of a `.png`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = _notes(original), _notes(decoded)
    quarters = max((float(notes[:, :2].sum(1).max()) for notes in scores if len(notes)), default=1.0)
    width = BARS_A_ROW * QUARTERS_A_BAR
    rows = min(MAX_ROWS, max(1, -(-int(np.ceil(quarters)) // width)))
    pitches = np.concatenate([notes[:, 2] for notes in scores] or [np.zeros(1)])
    low, high = (float(pitches.min()) - 2, float(pitches.max()) + 5) if len(pitches) else (60.0, 72.0)

    figure = Figure(figsize=(14, 1 + 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for row, axis in enumerate(axes):
        _draw_notes(axis, scores[0], color="#a9c8e8")
        _draw_notes(axis, scores[1], facecolor="none", edgecolor="#22223b", linewidth=0.8)
        start = row * width
        for time, text in _texts(decoded):
            if start <= time < start + width:
                axis.text(time, high - 0.5, text, fontsize=7, rotation=45, va="top", color="#aa3311")
        axis.set(xlim=(start, start + width), ylim=(low, high), ylabel="pitch")
        axis.set_xticks(np.arange(start, start + width + 1, QUARTERS_A_BAR))
        axis.grid(axis="x", alpha=0.4)
    shown = f", the first {rows * width} quarters of {quarters:.0f}" if rows * width < quarters else ""
    figure.suptitle(f"score (filled) and tokens (frames){shown}", fontsize=10)
    axes[-1].set_xlabel("quarter notes")
    figure.savefig(path, dpi=110)


def _notes(score: Any) -> NDArray[np.float64]:
    """Onset and duration in quarters, pitch: `[N, 3]`."""
    ticks = score.ticks_per_quarter
    rows = [
        (note.time / ticks, note.duration / ticks, note.pitch)
        for track in score.tracks if not track.is_drum for note in track.notes
    ]  # fmt: skip
    return np.array(rows, np.float64).reshape(-1, 3)


def _texts(score: Any) -> list[tuple[float, str]]:
    """What is written above: chords, and tempos where they change."""
    ticks = score.ticks_per_quarter
    chords = [(marker.time / ticks, marker.text.rpartition("_")[0] or marker.text) for marker in score.markers]
    tempos = [(tempo.time / ticks + 0.4, f"{tempo.qpm:.0f}/min") for tempo in score.tempos]
    return [*chords, *tempos]


def _draw_notes(axis: Any, notes: NDArray[np.float64], **style: Any) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes = [Rectangle((onset, pitch - 0.4), duration, 0.8) for onset, duration, pitch in notes]
    axis.add_collection(PatchCollection(boxes, **style))
