"""Chords, keys and beats of pieces whose chords, keys and beats are known."""

from __future__ import annotations

import midi_files as m
import numpy as np
import pytest

from audioprep.symbolic.beats import track_beats
from audioprep.symbolic.chords import recognise_chords
from audioprep.symbolic.keys import estimate_key
from audioprep.symbolic.read import read_score
from audioprep.symbolic.song import Song, apply_meter, seconds_of, song_of
from audioprep.symbolic.vocabulary import chord_values


def song(data: bytes) -> Song:
    return song_of(read_score(data, "a.mid"), "a.mid")


def chord(tones: list[int], bar: int) -> list[tuple[int, int, int, int]]:
    return [(bar * 1920, bar * 1920 + 1900, tone, 64) for tone in tones]


@pytest.mark.parametrize("up", range(12))
def test_chords_in_every_key(up: int) -> None:
    tones = {
        "C_M": [36, 60, 64, 67], "A_m7": [33, 60, 64, 67, 69], "D_m": [38, 62, 65, 69], "G_7": [31, 59, 62, 65, 67],
        "F_M7": [29, 57, 60, 64, 65], "B_o": [35, 59, 62, 65],
    }  # fmt: skip
    found = recognise_chords(song(m.midi(m.notes(*(
        (start, end, tone + up, velocity)
        for bar, sounding in enumerate(tones.values())
        for start, end, tone, velocity in chord(sounding, bar)
    )))))  # fmt: skip
    values = chord_values()
    expected = [values[(values.index(name) + 11 * up) % 132] for name in tones]
    assert [values[id_] for id_ in found.ids] == expected
    assert found.times.tolist() == [bar * 1920 for bar in range(len(tones))]


def test_silence_and_a_single_tone_are_no_chord() -> None:
    found = recognise_chords(song(m.midi(m.notes(*chord([60, 64, 67], 0), *chord([60, 64, 67], 4)))))
    values = chord_values()
    assert [values[id_] for id_ in found.ids] == ["C_M", "N_N", "C_M"]


@pytest.mark.parametrize("tonic", range(12))
def test_keys_of_scales(tonic: int) -> None:
    major = [*m.C_MAJOR, 67, 64, 60]
    minor = [57, 59, 60, 62, 64, 65, 68, 69, 64, 60, 57]
    assert estimate_key(song(m.scale([pitch + tonic for pitch in major]))) == (tonic, False)
    assert estimate_key(song(m.scale([pitch + tonic for pitch in minor]))) == ((tonic + 9) % 12, True)


@pytest.mark.parametrize("bpm", [72, 100, 143])
def test_beats_of_a_performance(bpm: int) -> None:
    """A file that says 120 and is played at another tempo, a little unevenly, from 0.4 s on."""
    random = np.random.default_rng(bpm)
    beat = 960 * 60 / bpm
    pattern = [(0, 36), (1, 60), (2, 64), (3, 60)]
    found = []
    for bar in range(24):
        for place, pitch in [*pattern, (2.5, 67)]:
            start = round(384 + (4 * bar + place) * beat + random.normal(0, 8))
            found.append((start, start + 200, pitch, 90 if place == 0 else 60))
    tracked = track_beats(song(m.midi(m.notes(*sorted(found)))))
    assert np.median(tracked.qpm) == pytest.approx(bpm, rel=0.02)
    steps = tracked.start / 120
    assert np.abs(steps - np.rint(steps)).mean() < 0.25
    low = np.rint(steps[tracked.pitch == 36]) % 16
    assert (low == 0).mean() > 0.9  # the bass begins bars


def test_tracked_beats_keep_the_seconds() -> None:
    before = song(m.midi(m.notes(*((n * 700, n * 700 + 300, 60 + n % 5, 64) for n in range(40)))))
    after = track_beats(before)
    gaps = np.diff(seconds_of(before, before.start)), np.diff(seconds_of(after, after.start))
    assert np.allclose(*gaps, atol=0.002)


def test_a_short_piece_has_no_beats_to_track() -> None:
    short = song(m.scale([60, 62]))
    assert track_beats(short) is short


def test_seconds_follow_the_tempos() -> None:
    piece = song(m.midi([(0, m.tempo(60)), (960, m.tempo(120))], m.notes((0, 480, 60, 64), (1920, 2400, 60, 64))))
    assert seconds_of(piece, piece.start) == pytest.approx([0, 3])


def test_a_meter_of_countless_bars_is_damage() -> None:
    from audioprep.errors import InputError

    piece = song(m.midi([(0, m.meter(1, 7))], m.notes((0, 480, 60, 64), (480 * 9000, 480 * 9001, 60, 64))))
    with pytest.raises(InputError, match="bars"):
        apply_meter(piece, "convert", "a.mid")
