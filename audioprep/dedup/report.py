"""`report.html` of `audioprep dedup`: pairs to hear and see, so that a person can set the threshold.

One page that loads nothing: sound and pictures are in it. A clip of 12 s takes 98 kB, its picture some 15 kB and at
most 32 kB: 40 pairs take about 9 MB and at most 11 MB.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Recording
from audioprep.dedup.report_charts import group_sizes, similarity_histogram
from audioprep.dedup.report_media import Clip, cut_clip
from audioprep.dedup.report_pairs import ReportPair
from audioprep.engine.commit import write_text
from audioprep.errors import InputError

REPORT = "report.html"
CLIP_SECONDS = 12.0
_INTO = 30.0  # seconds into what two recordings share at which a clip begins at the latest: openings are alike
_COUNTS = {
    "processed_files": "recordings", "duplicate_files": "dropped", "kept_files": "kept", "groups": "groups",
    "exact_copies": "exact copies", "failed_files": "failed",
}  # fmt: skip
_FOLDER = Path(__file__).parent


def write_report(
    path: Path,
    pairs: Sequence[ReportPair],
    similarities: NDArray[np.float64],
    sizes: Sequence[int],
    threshold: float,
    method: str,
    summary: dict[str, Any],
    on_pair: Callable[[int, int], None],
) -> None:
    """Writes the page. A recording that is gone or cannot be decoded any more gets a note in place of its sound.

    Args:
        path: of the page.
        pairs: to show, in this order.
        similarities: of all pairs that were found, float64 `[n]`.
        sizes: recordings of each group.
        threshold: from which similarity on a recording was dropped.
        method: how recordings were compared, in a few words.
        summary: what `summary.json` says.
        on_pair: called with the number of pairs done and of all.

    Raises:
        SystemFault: the machine is at fault, or the disk is full or broken.
    """
    cards: list[str] = []
    for number, pair in enumerate(pairs):
        cards.append(_card(pair, number))
        on_pair(number + 1, len(pairs))
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    page = Template((_FOLDER / "report.html").read_text(encoding="utf-8")).substitute(
        policy=_policy(script),
        script=script,
        title=escape(_title(summary)),
        method=escape(method[:1].upper() + method[1:]),
        rule=f"From {threshold:g} on, a recording is dropped for the other one.",
        counts="".join(
            f"<li><b>{summary[name]:,}</b>{label}</li>" for name, label in _COUNTS.items() if name in summary
        ),
        histogram=similarity_histogram(similarities, threshold),
        found=f"{len(similarities):,}",
        groups=group_sizes(sizes),
        settings="".join(
            f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_plain(value))}</dd>"
            for name, value in summary.items()
        ),
        relations="".join(
            f'<option value="{escape(name)}">{escape(_spoken(name))}</option>'
            for name in sorted({_relation(pair) for pair in pairs})
        ),
        least=f"{min((pair.similarity for pair in pairs), default=0):.3f}",
        most=f"{max((pair.similarity for pair in pairs), default=1):.3f}",
        shown=len(pairs),
        pairs="\n".join(cards) or '<p class="note">There are no pairs to show.</p>',
    )
    write_text(path, page, path.parent / ".audioprep" / "scratch")


@dataclass(frozen=True, slots=True)
class _Side:
    """One recording of a pair, and what of it is heard.

    Attributes:
        recording: the same.
        role: what became of it.
        start: of the clip, in seconds.
        seconds: of the clip.
        speed: at which the music runs in it.
    """

    recording: Recording
    role: str
    start: float
    seconds: float
    speed: float


def _sides(pair: ReportPair) -> tuple[_Side, _Side]:
    """Both begin at the same moment of the music, where that is known; otherwise at the same time."""
    aligned = pair.alignment or Alignment(0.0, min(pair.keep.seconds, pair.drop.seconds), 0.0)
    seconds = min(CLIP_SECONDS, max(aligned.overlap, 1.0))
    start = max(aligned.offset, 0.0) + min(max(aligned.overlap - seconds, 0.0) / 2, _INTO)
    speed, role = aligned.speed, "B · dropped" if pair.dropped else "B · kept, too"
    return (
        _Side(pair.keep, "A · kept", start, seconds, 1.0),
        _Side(pair.drop, role, (start - aligned.offset) / speed, seconds / speed, speed),
    )


def _card(pair: ReportPair, place: int) -> str:
    sides = "".join(_shown(side) for side in _sides(pair))
    buttons = """<div class="turns"><button type="button" name="turns" aria-pressed="false">Play in turn</button>
<button type="button" name="change">Switch A/B</button></div>"""
    return f"""<article class="pair card{" dropped" * pair.dropped}" data-place="{place}"
data-similarity="{pair.similarity:.6f}" data-relation="{escape(_relation(pair))}">
<header><h3>{pair.similarity:.4f}</h3><span class="tag">{escape(_tag(pair))}</span>
<span class="facts">{" · ".join(_facts(pair))}</span>{buttons if sides.count("<audio ") == 2 else ""}</header>
<div class="sides">{sides}</div></article>"""


def _shown(side: _Side) -> str:
    recording = side.recording
    folder, name = os.path.split(recording.uri)
    rate = f" · {recording.bytes / max(recording.seconds, 0.1) / 125:.0f} kbit/s" if recording.bytes else ""
    try:
        content = _player(side, cut_clip(recording.uri, side.start, side.seconds))
    except InputError as error:
        content = f'<div class="note">{escape(error.detail)}</div>'
    return f"""<div class="side"><div class="path"><span class="role">{side.role}</span><b><bdi>{escape(name)}</bdi></b>
<small><bdi>{escape(folder)}</bdi></small><small>{recording.seconds:.1f} s{rate}</small></div>
{content}</div>"""


def _player(side: _Side, clip: Clip) -> str:
    name = f"{_clock(side.start)} to {_clock(side.start + clip.seconds)}"
    return f"""<div class="picture"><img src="{clip.picture}" alt="Spectrogram, {name}"
style="width:{100 * clip.seconds / side.seconds:.2f}%"><i></i></div>
<audio controls preload="none" src="{clip.sound}" data-span="{side.seconds:.6f}" data-speed="{side.speed:.6f}"></audio>
<small>{name}</small>"""


def _facts(pair: ReportPair) -> list[str]:
    if pair.alignment is None:
        return ["not aligned: both from the same time on"]
    aligned = pair.alignment
    facts = [
        f"offset {aligned.offset:+.2f} s",
        f"overlap {aligned.overlap:.1f} s",
        f"agreement {aligned.agreement:.3f}",
    ]
    if aligned.speed != 1:
        facts.append(f"speed × {aligned.speed:.3f}")
    if aligned.pitch:
        facts.append(f"pitch {aligned.pitch:+.2f} semitones")
    return facts


def _relation(pair: ReportPair) -> str:
    return pair.relation if pair.dropped else "not-dropped"


def _tag(pair: ReportPair) -> str:
    spoken = _spoken(pair.relation)
    return spoken if pair.dropped else "not dropped" if pair.alignment is None else f"not dropped: {spoken}"


def _spoken(relation: str) -> str:
    return relation.replace("-", " ")


def _title(summary: dict[str, Any]) -> str:
    title = ", ".join(summary.get("dataset_dirs", []))
    return f"{title} against {', '.join(summary['against'])}" if summary.get("against") else title


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def _policy(script: str) -> str:
    """Nothing is loaded from anywhere, and no script runs but this one, whatever a file is called."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
