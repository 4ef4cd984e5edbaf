"""Words that recordings have in common are found, at any offset, speed and pitch; and what is chance is not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from audioprep.dedup.alignment import Alignment, relation_of
from audioprep.dedup.matching import Match, find
from audioprep.dedup.prints import CODEBOOKS, TRANSPOSITIONS, Index, Prints
from audioprep.encoders.fingerprint import SHIFTS, TUNINGS, rotate

Words = NDArray[np.uint16]


def music(frames: int, seed: int) -> Words:
    """Words as different music has them, of which each lasts for some frames; none is 0."""
    random = np.random.default_rng(seed)
    return np.repeat(random.integers(1, 4095, (frames // 2 + 1, CODEBOOKS), np.uint16), 2, axis=0)[:frames]


def damaged(words: Words, share: float, seed: int = 9) -> Words:
    """With so many of the bits turned over."""
    flips = np.random.default_rng(seed).random((*words.shape, 12)) < share
    return words ^ (flips << np.arange(12)).sum(-1).astype(np.uint16)


def prints(*recordings: Words) -> Prints:
    return Prints(np.concatenate(recordings), np.cumsum([0, *map(len, recordings)]))


def match(words: Words, *references: Words) -> dict[int, Match]:
    library = prints(*references)
    return find(words, library, Index(library))


def test_the_same():
    song, stranger = music(400, 0), music(400, 1)
    found = match(song, stranger, song)
    assert list(found) == [1]
    assert found[1] == Match(1.0, 1.0, 1.0, 1.0, 0.0, 400.0, 1.0, 0.0)


@pytest.mark.parametrize(("start", "stop"), [(100, 340), (0, 200), (300, 400)])
def test_an_excerpt(start: int, stop: int):
    song = music(400, 0)
    excerpt = damaged(song[start:stop], 0.04)
    found = match(excerpt, song)[0]
    assert found.offset == pytest.approx(start, abs=0.5)
    assert found.coverage == pytest.approx(1, abs=0.05) and found.overlap == pytest.approx(stop - start, abs=10)
    assert found.agreement == pytest.approx(0.96, abs=0.01) and found.similarity == pytest.approx(0.92, abs=0.03)
    # The other way round: the excerpt is the reference, and the song begins before it.
    assert match(song, excerpt)[0].offset == pytest.approx(-start, abs=0.5)


def test_two_cuts_that_overlap():
    song = music(600, 0)
    found = match(song[200:], song[:400])[0]
    assert found.coverage == pytest.approx(0.5, abs=0.05) and found.agreement == 1
    assert relation_of(found, 50, 50, 0.66, 0.5) == "shifted-cut"
    assert relation_of(found, 50, 50, 0.66, 0.6) == "passage"


@pytest.mark.parametrize("speed", [0.95, 0.99, 1.01, 1.04])
def test_another_speed(speed: float):
    song = music(2000, 0)
    faster = song[np.rint(np.arange(1850) * speed).astype(int) + 20]
    found = match(faster, song)[0]
    assert found.speed == pytest.approx(speed, abs=1e-3)
    assert found.offset == pytest.approx(20, abs=1)
    assert found.agreement > 0.88  # of frames that last for two, one in ten is the one before or after


@pytest.mark.parametrize("place", range(len(TRANSPOSITIONS)))
def test_another_pitch(place: int):
    """A recording's own words are those of the reference, turned, in one codebook of chroma and one of timbre."""
    change = TRANSPOSITIONS[place]
    song, higher = music(400, 0), music(400, 1)
    higher[:, change.tuning] = rotate(song[:, 0], change.semitones)
    higher[:, len(TUNINGS) + SHIFTS.index(change.semitones)] = song[:, len(TUNINGS)]
    found = match(higher, song)[0]
    assert (found.pitch, found.similarity, found.offset) == (pytest.approx(change.pitch), 1.0, 0.0)
    assert relation_of(found, 50, 50, 0.66, 0.5) == ("pitch" if change.pitch else "re-encode")


def test_other_sounds_are_a_cover():
    song, cover = music(400, 0), music(400, 1)
    cover[:, 0] = damaged(song[:, :1], 0.08)[:, 0]
    found = match(cover, song)[0]
    assert found.agreement > 0.9 and found.similarity < 0.1
    assert relation_of(found, 50, 50, 0.66, 0.5) == "cover"


def test_silence_has_nothing_in_common():
    silence, song = np.zeros((400, CODEBOOKS), np.uint16), music(400, 0)
    assert match(silence, silence, song) == {}
    # Silence before a song neither helps nor harms.
    assert match(np.concatenate([silence[:100], song]), song)[0][:2] == (1.0, 1.0)


@pytest.mark.parametrize("frames", [0, 1, 16, 17, 24])
def test_short_recordings_are_never_too_short_to_ask(frames: int):
    song = music(400, 0)
    found = match(song[:frames], song, song[:frames])
    assert all(one.agreement == 1 for one in found.values())


def test_strangers_are_not_found_by_chance():
    songs = [music(800, seed) for seed in range(30)]
    assert [list(match(song, *songs)) for song in songs] == [[place] for place in range(30)]


def test_a_loop_in_common_is_a_passage():
    """Sixteen frames, ten times over, in two recordings that are otherwise different."""
    loop = np.tile(music(16, 0), (10, 1))
    one, other = (np.concatenate([music(300, seed), loop, music(300, seed + 1)]) for seed in (1, 3))
    found = match(one, other)[0]
    assert found.coverage < 0.3
    assert relation_of(found, 95, 95, 0.66, 0.5) == "passage"


def test_what_many_have_in_common_does_not_hide_copies():
    """Each key occurs three hundred times, of which an index keeps some."""
    song = music(400, 0)
    copies = [damaged(song, 0.01, seed) for seed in range(300)]
    found = match(song, *copies)
    assert len(found) == 300


def test_relations_and_reversal():
    def of(**changed: float) -> Match:
        return Match(0.9, 1.0, 0.95, 0.95, 0.0, 400.0, 1.0, 0.0)._replace(**changed)

    assert relation_of(of(), 50, 50, 0.66, 0.5) == "re-encode"
    assert relation_of(of(), 50, 90, 0.66, 0.5) == "excerpt"
    assert relation_of(of(speed=1.01), 50, 50, 0.66, 0.5) == "speed"
    assert relation_of(of(speed=1.05), 50, 50, 0.66, 0.5) == "tempo"
    assert relation_of(of(speed=1.059, pitch=1.0), 50, 50, 0.66, 0.5) == "speed"
    there = Alignment.of(of(offset=80.0, overlap=160.0, speed=1.25, pitch=1.0))
    assert (there.offset, there.overlap) == (10, 20)
    back = there.reversed()
    assert (back.offset, back.overlap, back.speed, back.pitch) == (-8, 16, 0.8, -1)
    assert back.reversed() == there
