from __future__ import annotations

import midi_files as m
import numpy as np
import pytest

from audioprep.symbolic.augment import Change, changes
from audioprep.symbolic.decode import decode_words
from audioprep.symbolic.read import read_score
from audioprep.symbolic.song import song_of
from audioprep.symbolic.tokenizers import EmopiaSettings, EmopiaTokenizer
from audioprep.symbolic.vocabulary import full_vocabulary

SONG = m.midi(
    [(0, m.tempo(89)), (0, m.key(1, True)), (0, m.marker("E_m_E")), (960, m.marker("N_N_N")), (960, m.tempo(101))],
    m.notes((0, 480, 64, 64), (0, 1920, 52, 50), (240, 250, 67, 40), (1920, 5000, 71, 126)),
    # The same pitch as another voice, in the middle of its note.
    m.notes((480, 720, 52, 90)),
)  # fmt: skip


@pytest.mark.parametrize("key", ["none", "score"])
def test_words_to_midi_to_words(key) -> None:
    tokenizer = EmopiaTokenizer(EmopiaSettings(chords="markers", key=key))
    words = tokenizer.encode(read_score(SONG, "a.mid"), "a.mid").tokens
    written = decode_words(words, full_vocabulary(key != "none")).dumps_midi()
    assert (tokenizer.encode(read_score(written, "a.mid"), "a.mid").tokens == words).all()


def test_what_a_model_writes_in_disorder_is_passed_over() -> None:
    vocabulary = full_vocabulary(True)
    rows = np.random.default_rng(0).integers(0, [len(values) for values in vocabulary.values()], (500, 9))
    score = decode_words(rows, vocabulary)
    assert read_score(score.dumps_midi(), "a.mid").note_num() > 20


def test_copies_in_other_keys_at_other_tempos() -> None:
    tokenizer = EmopiaTokenizer(EmopiaSettings(chords="markers", key="score"))
    words = tokenizer.encode(read_score(SONG, "a.mid"), "a.mid").tokens
    vocabulary = full_vocabulary(True)

    def values(change: Change, name: str) -> list[int | str]:
        place = list(vocabulary).index(name)
        found = (vocabulary[name][id_] for id_ in change.tables(True)[place][words[:, place]])
        return [value for value in found if value not in (0, "CONTI")]

    up = Change(semitones=3)
    assert values(up, "pitch") == [f"Note_Pitch_{pitch + 3}" for pitch in (64, 52, 67, 52, 71)]
    assert values(up, "chord") == ["G_m", "N_N"]
    assert values(up, "key") == ["g"]
    assert values(Change(semitones=-3), "key") == ["c#"]
    assert values(up, "velocity") == values(Change(), "velocity")
    assert values(Change(tempo=1.1), "tempo") == ["Tempo_98", "Tempo_110"]
    assert values(Change(tempo=9), "tempo") == ["Tempo_224", "Tempo_224"]
    assert values(Change(velocity=8), "velocity") == [f"Note_Velocity_{v}" for v in (72, 58, 48, 98, 126)]
    assert values(Change(velocity=-20), "velocity") == [f"Note_Velocity_{v}" for v in (44, 40, 40, 70, 106)]
    assert (Change(semitones=-60).tables(True)[4][words[:, 4]] < 0).any()


def test_every_combination_of_changes() -> None:
    found = changes([1, -1], [0.9], [])
    assert found[0] == Change()
    assert len(found) == len({change.suffix for change in found}) == 6
    assert Change(2, 0.95, -4).suffix == "-k+2-t0p95-v-4"


def test_a_song_and_its_notes_agree() -> None:
    score = read_score(SONG, "a.mid")
    song = song_of(score, "a.mid")
    assert len(song.start) == score.note_num()
    assert song.key == (4, True)
