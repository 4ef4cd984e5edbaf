"""A small additive synthesizer, which plays the scores of the bundled samples.

Letters: `T` samples. Everything is float64; frequencies are in Hz, lengths in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from music21.note import NotRest
from numpy.typing import NDArray

from audioprep.samples.scores import Piece

Samples = NDArray[np.float64]
TAIL = 1.2  # seconds that the last note and the room may ring on
PEAK = 0.75  # -2.5 dBFS, since what a lossy codec gives back can be a little louder than what it got


def partials(t: Samples, hz: float, levels: Samples, decays: Samples, stretch: float = 0.0) -> Samples:
    """A sum of sines over the times `t` [T], partial by partial with its level and its decay (1/s)."""
    sound = np.zeros_like(t)
    highest = 0.45 / (t[1] - t[0])
    for k, (level, decay) in enumerate(zip(levels, decays, strict=True), start=1):
        frequency = hz * k * np.sqrt(1 + stretch * k * k)
        if frequency < highest:
            sound += level * np.exp(-decay * t) * np.sin(2 * np.pi * frequency * t)
    return sound


def pluck(t: Samples, hz: float, length: float) -> Samples:
    """A string plucked at a fifth of its length: high partials die first."""
    k = np.arange(1, 25)
    sound = partials(t, hz, np.sin(np.pi * k / 5) / k, (1.0 + 0.35 * k) * np.sqrt(hz / 220))
    return sound * envelope(t, length + 0.5, attack=0.002, release=0.3)


def piano(t: Samples, hz: float, length: float) -> Samples:
    """Two strings a trifle apart, slightly inharmonic, damped when the key is let go."""
    k = np.arange(1, 17)
    levels, decays = 1 / k**1.6, 0.7 + 0.35 * k * np.sqrt(hz / 260)
    sound = partials(t, hz, levels, decays, 2e-4) + partials(t, hz * 1.0006, levels, decays * 0.6, 2e-4)
    return 0.5 * sound * envelope(t, length + 0.2, attack=0.006, release=0.35)


def organ(t: Samples, hz: float, length: float) -> Samples:
    """Open pipes of 16' (softly), 8', 4', 2 2/3' and 2'; nothing decays while the key is held."""
    levels = np.array([0.25, 1.0, 0, 0.55, 0, 0.2, 0, 0.25, 0, 0, 0, 0.06, 0, 0, 0, 0.06])
    sound = partials(t, hz / 2, levels, np.zeros(16))
    return 0.4 * sound * envelope(t, length, attack=0.04, release=0.12)


def flute(t: Samples, hz: float, length: float) -> Samples:
    """A few partials with a vibrato that sets in late, and a little breath."""
    vibrato = 0.0006 * np.sin(2 * np.pi * 5.2 * t) * np.clip((t - 0.15) / 0.3, 0, 1)
    sound = partials(t + vibrato * 220 / hz, hz, np.array([1, 0.4, 0.14, 0.06, 0.02]), np.zeros(5))
    breath = np.random.default_rng(round(hz)).standard_normal(t.size)
    sound += 0.01 * np.convolve(breath, np.ones(8) / 8, "same")
    return 0.55 * sound * envelope(t, length, attack=0.06, release=0.1)


def envelope(t: Samples, length: float, attack: float, release: float) -> Samples:
    """Rises for `attack`, is let go after `length`, then fades for `release`, without corners."""
    gate = np.clip(t / attack, 0, 1) * np.clip((length + release - t) / release, 0, 1)
    return np.sin(np.pi / 2 * gate) ** 2


def drum(kind: str, rate: int) -> Samples:
    """A stroke of the kick drum `K`, the snare drum `S` or the closed hi-hat `h`."""
    t = np.arange(int(0.25 * rate)) / rate
    noise = np.random.default_rng(ord(kind)).standard_normal(t.size)
    if kind == "K":
        return np.sin(2 * np.pi * (50 * t + 5 * (1 - np.exp(-25 * t)))) * np.exp(-12 * t)
    if kind == "S":
        return 0.25 * noise * np.exp(-22 * t) + 0.4 * np.sin(2 * np.pi * 190 * t) * np.exp(-30 * t)
    return 0.12 * np.diff(noise, append=0) * np.exp(-60 * t)


TIMBRES: dict[str, Callable[[Samples, float, float], Samples]] = {
    "pluck": pluck,
    "piano": piano,
    "organ": organ,
    "flute": flute,
}


def render(piece: Piece, rate: int, channels: int) -> Samples:
    """Plays a piece: samples [T, channels], with their peak at `PEAK`."""
    beat = 60 / piece.tempo
    last = max(min(voice.notes.highestTime, piece.beats) for voice in piece.parts)
    mix = np.zeros((int((last * beat + TAIL) * rate), 2))
    touch = np.random.default_rng(0)
    for voice in piece.parts:
        for note in voice.notes.flatten().notes:
            if note.offset < piece.beats:
                gain = voice.gain * touch.uniform(0.85, 1)
                add(mix, gain * play(note, voice.timbre, beat, rate), note.offset * beat, rate, voice.pan)
    for step, kind in enumerate(piece.drums):
        if kind != ".":
            add(mix, drum(kind, rate), step * beat / 4, rate, pan=0.5)
    mix += 0.35 * reverb(mix, rate)
    mix *= np.clip(np.arange(len(mix), 0, -1) / (0.5 * rate), 0, 1)[:, None]
    return normalize(mix if channels == 2 else mix.mean(axis=1, keepdims=True))


def play(note: NotRest, timbre: str, beat: float, rate: int) -> Samples:
    """One note with its ringing: samples [T]."""
    length = float(note.quarterLength) * beat
    t = np.arange(int((length + 0.8) * rate)) / rate
    return TIMBRES[timbre](t, note.pitches[0].frequency, length)


def add(mix: Samples, sound: Samples, start: float, rate: int, pan: float) -> None:
    """Adds `sound` [T] to `mix` [T, 2] from `start` seconds on, panned at equal power."""
    at = round(start * rate)
    sound = sound[: len(mix) - at]
    sides = np.array([np.cos(pan * np.pi / 2), np.sin(pan * np.pi / 2)])
    mix[at : at + len(sound)] += sound[:, None] * sides


def reverb(dry: Samples, rate: int) -> Samples:
    """The room alone: `dry` [T, 2] convolved with a second of dull, dying noise, another for each side."""
    t = np.arange(rate)[:, None] / rate
    noise = np.random.default_rng(0).standard_normal((rate, 2)) * np.exp(-5 * t) * np.clip(t / 0.01, 0, 1)
    size = len(dry) + rate
    dull = 1 / (1 + (np.fft.rfftfreq(size, 1 / rate)[:, None] / 2500) ** 2)
    room = np.fft.rfft(noise / np.linalg.norm(noise, axis=0), size, axis=0) * dull
    return np.fft.irfft(np.fft.rfft(dry, size, axis=0) * room, size, axis=0)[: len(dry)]


def normalize(sound: Samples) -> Samples:
    """`sound` with its peak at `PEAK`."""
    return sound * (PEAK / np.abs(sound).max())
