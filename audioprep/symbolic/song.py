"""A score as arrays: the notes, tempos, chords and meters of one song, in ticks of 480 a quarter note."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from audioprep.errors import InputError, Reason

if TYPE_CHECKING:
    from symusic.core import ScoreTick

QUARTER = 480
BAR = 4 * QUARTER
DEFAULT_QPM = 120.0
MAX_BARS = 100_000

MeterPolicy = Literal["keep", "convert", "reject"]

Times = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Song:
    """The notes of one instrument and what goes on around them.

    Attributes:
        start, end: float64 `[N]`, ticks; notes are sorted by start, then from the highest pitch down.
        pitch, velocity: int64 `[N]`, MIDI numbers.
        tempo_times, qpm: float64 `[M]`, ticks and quarter notes a minute; the first is at 0.
        markers: texts at their ticks, in order of time.
        meters: (tick, numerator, denominator), in order of time.
        key: what the score's first key signature says: semitones above C, and whether it is minor; None: nothing.
    """

    start: Times
    end: Times
    pitch: NDArray[np.int64]
    velocity: NDArray[np.int64]
    tempo_times: Times
    qpm: NDArray[np.float64]
    markers: tuple[tuple[float, str], ...]
    meters: tuple[tuple[float, int, int], ...]
    key: tuple[int, bool] | None

    @property
    def meter_names(self) -> str:
        """The meters that occur, such as `3/4,4/4`; empty where the score says none."""
        return ",".join(sorted({f"{numerator}/{denominator}" for _, numerator, denominator in self.meters}))


def song_of(score: ScoreTick, uri: str) -> Song:
    """The tracks that are named `piano`; where none is, all but the drums.

    Raises:
        InputError: there are only drums.
    """
    named = [track for track in score.tracks if track.name == "piano"]
    tracks = named or [track for track in score.tracks if not track.is_drum]
    notes = [track.notes.numpy() for track in tracks if len(track.notes)]
    if not notes:
        raise InputError(Reason.NO_NOTES, uri, "has notes of drums only")
    scale = QUARTER / score.ticks_per_quarter
    time, duration, pitch, velocity = (
        np.concatenate([track[name] for track in notes]).astype(np.int64)
        for name in ("time", "duration", "pitch", "velocity")
    )
    order = np.lexsort((-pitch, time))  # stable: notes that are alike stay in the order of their tracks
    start = time[order] * scale
    tempo_times, qpm = _tempos([(tempo.time * scale, tempo.qpm) for tempo in score.tempos])
    return Song(
        start=start,
        end=start + duration[order] * scale,
        pitch=pitch[order],
        velocity=velocity[order],
        tempo_times=tempo_times,
        qpm=qpm,
        markers=tuple(sorted(((marker.time * scale, marker.text) for marker in score.markers), key=lambda m: m[0])),
        meters=tuple((meter.time * scale, meter.numerator, meter.denominator) for meter in score.time_signatures),
        key=_signature_key(score),
    )


def _tempos(found: list[tuple[float, float]]) -> tuple[Times, NDArray[np.float64]]:
    """Without those that change nothing; 120 at the start where nothing else is said."""
    kept = [(0.0, DEFAULT_QPM)]
    for time, qpm in found:
        if time == 0:
            kept = [(0.0, qpm)]
        elif qpm != kept[-1][1]:
            kept.append((time, qpm))
    times, values = zip(*kept, strict=True)
    return np.array(times, np.float64), np.array(values, np.float64)


def _signature_key(score: ScoreTick) -> tuple[int, bool] | None:
    if not len(score.key_signatures):
        return None
    first = score.key_signatures[0]
    is_minor = bool(first.tonality)
    return (first.key * 7 + (9 if is_minor else 0)) % 12, is_minor


def apply_meter(song: Song, policy: MeterPolicy, uri: str) -> Song:
    """Makes bars of four quarter notes of bars of other meters.

    Args:
        song: any.
        policy: `keep`: the bars are counted in four quarter notes from the start, whatever the meter, as EMOPIA's
            scripts do; `convert`: every bar begins a bar of 4/4, with a rest at its end where it is shorter, and
            takes as many bars of 4/4 as it needs where it is longer; `reject`: other meters are an error.
        uri: names the song in errors.

    Raises:
        InputError: `reject`, and there is another meter.
    """
    if policy == "keep" or all(numerator == denominator for _, numerator, denominator in song.meters):
        return song
    if policy == "reject":
        raise InputError(Reason.UNSUPPORTED, uri, f"its meter is {song.meter_names}, and only 4/4 is wanted")
    return _in_common_time(song, uri)


def _in_common_time(song: Song, uri: str) -> Song:
    last = float(song.end.max(initial=0.0))
    begins, moved = [0.0], [0.0]  # of the bars, before and after
    meters = [(0.0, 4, 4), *song.meters]
    for (since, numerator, denominator), following in zip(meters, [*meters[1:], (last + 1, 0, 0)], strict=True):
        if numerator <= 0 or denominator <= 0:
            continue
        until, length = min(following[0], last + 1), numerator * BAR / denominator
        while begins[-1] < until and since < until:
            # A meter that changes within a bar ends that bar.
            bar = min(length, until - begins[-1])
            if len(begins) > MAX_BARS:
                raise InputError(Reason.UNSUPPORTED, uri, f"has more than {MAX_BARS} bars: its meter is damaged")
            begins.append(begins[-1] + bar)
            moved.append(moved[-1] + BAR * -(-bar // BAR))
    before, after = np.array(begins), np.array(moved)

    def place(times: Times) -> Times:
        bar = np.searchsorted(before, times, side="right") - 1
        return after[bar] + times - before[bar]

    start = place(song.start)
    return replace(
        song,
        start=start,
        end=start + (song.end - song.start),
        tempo_times=place(song.tempo_times),
        markers=tuple((float(place(np.array(time))), text) for time, text in song.markers),
        meters=((0.0, 4, 4),),
    )


def seconds_of(song: Song, times: Times) -> Times:
    """Where ticks lie in seconds."""
    at = np.concatenate([[0.0], np.cumsum(np.diff(song.tempo_times) * 60 / (song.qpm[:-1] * QUARTER))])
    part = np.maximum(np.searchsorted(song.tempo_times, times, side="right") - 1, 0)
    return at[part] + (times - song.tempo_times[part]) * 60 / (song.qpm[part] * QUARTER)
