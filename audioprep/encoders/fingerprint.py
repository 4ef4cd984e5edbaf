"""The encoder `fingerprint`: words of 12 bits, eight times a second, by which copies of a recording are known.

A bit is the sign of a difference over time and pitch, as in Haitsma and Kalker 2002, "A Highly Robust Audio
Fingerprinting System" (ISMIR): it hardly changes under lossy coding, noise, equalization and other loudness, and cuts
at any place have the same words. There are two kinds, each a few codebooks:

- *chroma*: of the twelve chroma classes, whose octaves are folded into one. Music that is a semitone higher has the
  same words, rotated by one bit. What lies between semitones is met by three tunings, a third of a semitone apart;
  together with rotation they stand for every transposition. The word 0 means silence; no other sound has it.
- *timbre*: of thirteen bands of four semitones, which other instruments fill in another way. Three of them, with
  bands a semitone apart, are for the smallest transpositions.

No weights, and no torch.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.device import DEVICE

NAME = "fingerprint"
BITS = 12
TUNINGS = (0.0, -1 / 3, 1 / 3)
"""Of the codebooks of chroma, which come first, in semitones."""
SHIFTS = (0, -1, 1)
"""Of the codebooks of timbre, which follow, in semitones."""

_RATE = 8000
_HOP = 1000
FRAME_RATE = _RATE / _HOP
"""In Hz."""
_WINDOW = 128 * _HOP
_N_FFT = 4096
_SPAN = 4
"""Spectra before and after a frame's place, which are compared."""
_LOWEST = 110.0
_OCTAVES = 5
_BAND = 4
"""Semitones of a band of timbre; the first begins so much above the lowest."""
_WIDTH = 0.35
"""Of a semitone's bell, in semitones: wide enough to give way to a sixth of one, narrow enough to tell two."""
_SILENCE = 3e-4
"""Sum of all magnitudes, those of a full-scale sine being about 1, below which a frame has no music in it."""


class Settings(BaseModel):
    """Settings of `fingerprint`."""

    model_config = ConfigDict(extra="forbid")

    device: str = Field(default="cpu", pattern=DEVICE, description="Of no effect: it runs on the CPU.")


def describe(_: Settings) -> EncoderSpec:
    """What comes out."""
    return EncoderSpec(
        name=NAME,
        kind="tokens",
        sample_rate=_RATE,
        channels=1,
        hop_length=_HOP,
        window=_WINDOW,
        left_context=_SPAN * _HOP + _N_FFT // 2,
        right_context=(_SPAN - 2) * _HOP + _N_FFT // 2,
        batch_size=1,
        fingerprint=hashlib.sha256(_bells().tobytes()).hexdigest(),
        num_codebooks=len(TUNINGS) + len(SHIFTS),
        codebook_size=2**BITS,
        settings={"numpy": np.__version__},
    )


def load(settings: Settings) -> Fingerprint:
    """The encoder."""
    return Fingerprint(describe(settings))


class Fingerprint:
    """Encodes; made by `load`."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._hann = np.hanning(_N_FFT + 1)[:-1].astype(np.float32)

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Encodes windows; see `audioprep.encoders.base.Encoder`."""
        return np.stack([self._encode(window[0]) for window in samples])

    def _encode(self, samples: NDArray[np.float32]) -> NDArray[np.uint16]:
        pitches = self._pitches(samples)
        chroma = pitches.reshape(len(pitches), _OCTAVES, 12, len(TUNINGS)).sum(1)
        timbre = np.stack([_bands(pitches[:, :, 0], shift) for shift in SHIFTS], axis=2)
        level = np.lib.stride_tricks.sliding_window_view(chroma[:, :, 0].sum(1), 2 * _SPAN).mean(1)
        words = _words(_rise(chroma) > _rise(np.roll(chroma, -1, axis=1)))
        return np.concatenate(
            [words * (level > _SILENCE)[:, None], _words(np.diff(_rise(timbre), axis=1) > 0)], axis=1, dtype=np.uint16
        )

    def _pitches(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples to magnitudes `[spectra, semitones, tunings]`."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, _N_FFT)[::_HOP] * self._hann
        first, last = _bins()
        spectra = np.fft.rfft(frames)[:, first:last].astype(np.complex64, copy=False)
        power = spectra.real**2 + spectra.imag**2
        return np.sqrt(power @ _bells()).reshape(len(frames), -1, len(TUNINGS))


def rotate(words: NDArray[np.uint16], semitones: int) -> NDArray[np.uint16]:
    """The words that the same music has so many semitones higher (lower, if negative)."""
    up = np.uint16(semitones % BITS)
    return (words << up | words >> (BITS - up)) & np.uint16(2**BITS - 1)


def _bands(semitones: NDArray[np.float32], shift: int) -> NDArray[np.float32]:
    """Magnitudes `[spectra, semitones]` to those of thirteen bands, `[spectra, 13]`."""
    first = _BAND + shift
    return semitones[:, first : first + _BAND * (BITS + 1)].reshape(len(semitones), BITS + 1, _BAND).sum(2)


def _rise(magnitudes: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much more there is after each frame than before it: `[F + 2 * span - 1, ...]` to `[F, ...]`."""
    means = np.lib.stride_tricks.sliding_window_view(magnitudes, _SPAN, axis=0).mean(-1)
    return means[_SPAN:] - means[:-_SPAN]


def _words(bits: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Bits `[F, 12, K]` to words `[F, K]`."""
    weights = 1 << np.arange(BITS, dtype=np.uint16)
    return (bits * weights[:, None]).sum(1, dtype=np.uint16)


def _bins() -> tuple[int, int]:
    """The first bin of the spectrum that is looked at, and one past the last."""
    return int(_LOWEST / 2 * _N_FFT / _RATE), _N_FFT // 2


@cache
def _bells() -> NDArray[np.float32]:
    """The share of each bin in each semitone `[bins, semitones * tunings]`: bells on the scale of pitch."""
    frequencies = np.arange(*_bins()) * _RATE / _N_FFT
    pitches = 12 * np.log2(frequencies / _LOWEST)
    centres = np.arange(_OCTAVES * 12)[:, None] + np.array(TUNINGS)
    bells = np.exp(-0.5 * ((pitches[:, None] - centres.ravel()) / _WIDTH) ** 2)
    # A sine of full scale has a magnitude of n_fft / 4 in its bin.
    return (bells / bells.sum(0) / (_N_FFT / 4) ** 2).astype(np.float32)
