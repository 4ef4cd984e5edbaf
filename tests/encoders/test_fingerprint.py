"""The encoder `fingerprint`: what its words say, and what leaves them as they are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from audioprep.encoders.fingerprint import SHIFTS, TUNINGS, Settings, load, rotate
from audioprep.encoders.registry import load_encoder

ENCODER = load(Settings())
SPEC = ENCODER.spec
RATE = SPEC.sample_rate


def tune(semitones: float = 0, seed: int = 0, seconds: float = SPEC.length / RATE) -> NDArray[np.float32]:
    """Chords of three plucked notes, about three a second: float32 `[T]`."""
    random = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * RATE) + RATE)
    time = np.arange(RATE) / RATE
    for start in np.arange(0, seconds, 0.31):
        for pitch in random.choice(30, 3, replace=False):
            hz = 160 * 2 ** ((pitch + semitones) / 12)
            note = sum(np.sin(2 * np.pi * k * hz * time) / k for k in range(1, 5)) * np.exp(-5 * time)
            sound[round(start * RATE) :][:RATE] += 0.1 * note
    return sound[: round(seconds * RATE)].astype(np.float32)


def words(samples: NDArray[np.float32]) -> NDArray[np.uint16]:
    whole = np.array([[SPEC.left_context, SPEC.left_context + SPEC.window]])
    return ENCODER.encode(samples[None, None, : SPEC.length], whole)[0]


def agreement(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> float:
    return 1 - np.bitwise_count(one ^ other).mean() / 12


def test_spec_and_registry():
    assert load_encoder("fingerprint", {"device": "cpu"}).spec == SPEC
    assert (SPEC.frame_rate, SPEC.num_codebooks, SPEC.codebook_size) == (8, len(TUNINGS) + len(SHIFTS), 4096)
    found = words(tune())
    assert found.shape == (SPEC.window // SPEC.hop_length, SPEC.num_codebooks)
    assert found.dtype == np.uint16 and found.max() < 4096


def test_windows_have_the_context_that_their_frames_need():
    """Frames in the middle of a window are those of a window that begins elsewhere."""
    frames = 40
    long = tune(seconds=(SPEC.length + frames * SPEC.hop_length) / RATE)
    np.testing.assert_array_equal(words(long)[frames:], words(long[frames * SPEC.hop_length :])[:-frames])


def test_what_copies_have_in_common():
    whole = tune()
    clean = words(whole)
    noise = np.random.default_rng(1).standard_normal(len(whole)).astype(np.float32)
    brighter = (whole + 2 * np.diff(whole, prepend=0)).astype(np.float32)
    assert agreement(words(0.2 * whole), clean) > 0.99
    assert agreement(words((whole + 0.02 * noise).astype(np.float32)), clean) > 0.9
    assert agreement(words(brighter), clean) > 0.9
    assert agreement(words(tune(seed=1)), clean) < 0.6


@pytest.mark.parametrize("shift", [-1, 1])
def test_higher_music_has_the_same_words_rotated(shift: int):
    clean, higher = words(tune()), words(tune(shift))
    assert agreement(rotate(higher[:, 0], -shift), clean[:, 0]) > 0.95
    assert agreement(higher[:, 0], clean[:, 0]) < 0.6
    # Timbre: the codebook whose bands are as much higher.
    assert agreement(higher[:, len(TUNINGS) + SHIFTS.index(shift)], clean[:, len(TUNINGS)]) > 0.95


@pytest.mark.parametrize(("cents", "tuning"), [(0, 0), (-33, 1), (33, 2)])
def test_between_semitones_another_tuning_fits(cents: int, tuning: int):
    clean, detuned = words(tune())[:, 0], words(tune(cents / 100))
    fits = [agreement(detuned[:, place], clean) for place in range(len(TUNINGS))]
    assert np.argmax(fits) == tuning and fits[tuning] > 0.95


@pytest.mark.parametrize("cents", [-17, 17])
def test_half_way_between_two_tunings_either_fits_well_enough(cents: int):
    clean, detuned = words(tune())[:, 0], words(tune(cents / 100))
    assert max(agreement(detuned[:, place], clean) for place in range(len(TUNINGS))) > 0.8


def test_rotation():
    some = np.array([1, 0b100000000000, 0b110], np.uint16)
    assert rotate(some, 1).tolist() == [2, 1, 0b1100]
    assert rotate(rotate(some, 5), -5).tolist() == some.tolist()
    assert rotate(some, 12).tolist() == some.tolist()


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_has_a_word_of_its_own(level: float):
    quiet = level * np.random.default_rng(0).standard_normal(SPEC.length).astype(np.float32)
    assert not words(quiet)[:, : len(TUNINGS)].any()
    assert (words(tune())[:, : len(TUNINGS)] > 0).all()
