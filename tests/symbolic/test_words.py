from __future__ import annotations

from typing import Any

import midi_files as m
import numpy as np
import pytest
from numpy.typing import NDArray

from audioprep.errors import InputError, Reason
from audioprep.symbolic.read import read_score
from audioprep.symbolic.tokenizers import EmopiaSettings, EmopiaTokenizer
from audioprep.symbolic.vocabulary import (
    TEMPO_BINS,
    VELOCITY_BINS,
    full_vocabulary,
    published_vocabulary,
)
from audioprep.symbolic.words import nearest


def words(data: bytes, name: str = "a.mid", **settings) -> list[tuple[int | str, ...]]:
    """The values of a file's words."""
    values: dict[str, Any] = {"chords": "markers"} | settings
    found = EmopiaTokenizer(EmopiaSettings(**values)).encode(read_score(data, name), name)
    classes = list(full_vocabulary(settings.get("key", "none") != "none").values())
    return [tuple(values[id_] for values, id_ in zip(classes, row, strict=True)) for row in found.tokens]


BAR = (0, 0, "Bar", "Metrical", 0, 0, 0, 0)
EOS = (0, 0, 0, "EOS", 0, 0, 0, 0)


def emotion(quadrant: int) -> tuple:
    return (0, 0, 0, "Emotion", 0, 0, 0, quadrant)


def at(position: int, tempo: str = "CONTI", chord: str = "CONTI") -> tuple:
    return (tempo, chord, f"Beat_{position}", "Metrical", 0, 0, 0, 0)


def note(pitch: int, duration: int, velocity: int) -> tuple:
    return (0, 0, 0, "Note", f"Note_Pitch_{pitch}", f"Note_Duration_{duration}", f"Note_Velocity_{velocity}", 0)


def test_a_song_word_by_word() -> None:
    """Counted by hand from the published quantisation."""
    meta = m.deltas(
        [(0, m.tempo(90)), (0, m.marker("global_bpm_90")), (1920, m.marker("C_M_E")), (2880, m.tempo(121)),
         (3360, m.marker("A_m7_A"))]
    )  # fmt: skip
    found = m.notes(
        (1930, 2400, 60, 64), (1925, 2300, 64, 65), (1930, 9999, 67, 20), (2400, 2430, 72, 127), (3900, 4000, 50, 41)
    )
    assert words(m.midi(meta, found), "Q3_0vLPYiPN7qY_0.mid") == [
        emotion(3),
        BAR,  # the empty bar before it is left out, the tempo in it is not
        at(0, "Tempo_89", "C_M"),
        note(64, 360, 64),  # begins first; its velocity is half way between two bins
        note(67, 1920, 40),
        note(60, 480, 64),
        at(4),
        note(72, 0, 126),
        at(8, "Tempo_122"),
        at(12, chord="A_m7"),
        BAR,
        at(0),
        note(50, 120, 40),
        BAR,
        EOS,
    ]


def test_a_last_note_on_a_bar_line_is_kept() -> None:
    data = m.midi(m.notes((0, 480, 60, 64), (1920, 2400, 62, 64)))
    assert words(data)[-5:] == [BAR, at(0), note(62, 480, 64), BAR, EOS]


def test_other_resolutions_mean_the_same() -> None:
    fine, coarse = ([(n * 3 * step, n * 3 * step + 2 * step, pitch, 64) for n, pitch in enumerate(m.C_MAJOR)]
                    for step in (480, 96))  # fmt: skip
    assert words(m.midi(m.notes(*fine))) == words(m.midi(m.notes(*coarse), division=96))


def test_only_tracks_named_piano_count_where_there_are_some() -> None:
    piano = [(0, m.name("piano")), *m.notes((0, 480, 60, 64))]
    other = [(0, m.name("flute")), *m.notes((0, 480, 80, 64))]
    drums = [(0, m.on(40, channel=9)), (480, m.off(40, channel=9))]
    assert [word[4] for word in words(m.midi(piano, other, drums)) if word[4]] == ["Note_Pitch_60"]
    assert [word[4] for word in words(m.midi(other, drums)) if word[4]] == ["Note_Pitch_80"]
    with pytest.raises(InputError, match="drums"):
        words(m.midi(drums))


@pytest.mark.parametrize(("signature", "name"), [(m.key(-3, True), "c"), (m.key(2), "D"), (m.key(-5), "C#")])
def test_the_key_is_a_word_after_the_emotion(signature: bytes, name: str) -> None:
    data = m.midi([(0, signature)], m.notes((0, 480, 60, 64)))
    assert words(data, "Q2_x.mid", key="score")[:2] == [
        (*emotion(2), 0),
        (0, 0, 0, "Key", 0, 0, 0, 0, name),
    ]


def test_markers_that_are_no_chords_are_passed_over() -> None:
    marks = [(0, m.marker(text)) for text in ("Boundary_1", "verse", "H_M_H", "Db_sus4_Db", "C_?_C", "N_N_N")]
    found = words(m.midi(marks, m.notes((0, 480, 60, 64))))
    assert found[2] == at(0, "Tempo_119", "N_N")
    assert words(m.midi(marks[:-1], m.notes((0, 480, 60, 64))))[2] == at(0, "Tempo_119", "C#_sus4")
    assert words(m.midi(marks, m.notes((0, 480, 60, 64))), chords="none")[2] == at(0, "Tempo_119")


@pytest.mark.parametrize("bins", [TEMPO_BINS, VELOCITY_BINS])
def test_nearest_is_the_first_of_the_nearest(bins: NDArray[np.int64]) -> None:
    values = np.arange(-4, 260) / 2
    expected = [np.argmin(np.abs(bins - value)) for value in values]
    assert nearest(bins, values).tolist() == expected


def test_vocabularies() -> None:
    sizes = {name: len(values) for name, values in published_vocabulary(True).items()}
    assert list(sizes.values()) == [56, 135, 18, 5, 87, 18, 42, 5, 25]
    full = full_vocabulary(False)
    for name, values in full.items():
        assert len(set(values)) == len(values) <= 256
        expected = sorted(values, key=lambda value: (not isinstance(value, int), value))
        assert list(values) == expected, name
    assert full_vocabulary(True)["type"].index("Key") == 4  # as EMOPIA's generator has it


THREE = m.midi(
    [(0, m.meter(3, 2)), (1440 * 2, m.meter(5, 2))],
    m.notes((0, 480, 60, 64), (1440, 1920, 62, 64), (2880, 3360, 64, 64), (5280, 5760, 65, 64)),
)


def test_meters_are_kept_converted_or_rejected() -> None:
    def positions(policy: str) -> list[int | str]:
        return [word[2] for word in words(THREE, meter=policy) if word[2]]

    assert positions("keep") == ["Bar", "Beat_0", "Beat_12", "Bar", "Beat_8", "Bar", "Beat_12", "Bar"]
    # Two bars of three quarters, then one of five, which takes two of 4/4, then another.
    assert positions("convert") == ["Bar", "Beat_0", "Bar", "Beat_0", "Bar", "Beat_0", "Bar", "Bar", "Beat_0", "Bar"]
    with pytest.raises(InputError, match="its meter is 3/4,5/4") as raised:
        words(THREE, meter="reject")
    assert raised.value.reason is Reason.UNSUPPORTED
