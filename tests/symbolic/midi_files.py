"""MIDI files byte by byte, for tests."""

from __future__ import annotations

import struct

Message = tuple[int, bytes]  # ticks since the message before it


def midi(*tracks: list[Message], division: int = 480, format: int = 1, ended: bool = True) -> bytes:
    """A MIDI file of these tracks; `ended`: each ends as it should."""
    header = b"MThd" + struct.pack(">IHHH", 6, format, len(tracks), division)
    return header + b"".join(_track(messages, ended) for messages in tracks)


def _track(messages: list[Message], ended: bool) -> bytes:
    body = b"".join(number(delta) + message for delta, message in messages) + (b"\0\xff\x2f\0" if ended else b"")
    return b"MTrk" + struct.pack(">I", len(body)) + body


def number(value: int) -> bytes:
    """A number of variable length."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def on(pitch: int, velocity: int = 64, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def meta(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + number(len(data)) + data


def tempo(quarters_a_minute: float) -> bytes:
    return meta(0x51, round(60e6 / quarters_a_minute).to_bytes(3, "big") if quarters_a_minute else bytes(3))


def marker(text: str) -> bytes:
    return meta(6, text.encode())


def name(text: str) -> bytes:
    return meta(3, text.encode())


def meter(numerator: int, power: int) -> bytes:
    """`power`: of two, which is the denominator."""
    return meta(0x58, bytes([numerator, power, 24, 8]))


def key(sharps: int, is_minor: bool = False) -> bytes:
    return meta(0x59, bytes([sharps % 256, is_minor]))


def notes(*found: tuple[int, int, int, int]) -> list[Message]:
    """Messages of notes (start, end, pitch, velocity), in ticks."""
    events = [(start, 1, on(pitch, velocity)) for start, _, pitch, velocity in found]
    events += [(end, 0, off(pitch)) for _, end, pitch, _ in found]
    return deltas((time, message) for time, _, message in sorted(events, key=lambda event: event[:2]))


def deltas(timed) -> list[Message]:
    """Messages at their times as messages with the time since the one before."""
    found, now = [], 0
    for time, message in timed:
        found.append((time - now, message))
        now = time
    return found


def scale(pitches: list[int], length: int = 480) -> bytes:
    """A file in which these pitches follow each other."""
    return midi(notes(*((n * length, (n + 1) * length, pitch, 64) for n, pitch in enumerate(pitches))))


C_MAJOR = [60, 62, 64, 65, 67, 69, 71, 72]


def deltas_of(pitches: list[int], length: int = 240) -> list[Message]:
    """A track named `piano` in which these pitches follow each other."""
    played = notes(*((n * length, (n + 1) * length, pitch, 50 + pitch % 40) for n, pitch in enumerate(pitches)))
    return [(0, name("piano")), *played]
