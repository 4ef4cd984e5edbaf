"""The numbers of the log-mel frames: apart from `mel`, so that a description needs no torch."""

from __future__ import annotations

SAMPLE_RATE = 24_000
N_FFT = 2048
HOP = 240
N_MELS = 128
STACK = 4
"""Spectrogram frames in a token frame."""
FRAME = HOP * STACK
"""Samples of one token frame: 960, so 25 frames a second."""
DIM = N_MELS * STACK
CONTEXT = (N_FFT - HOP) // 2
"""Samples that the first and the last analysis window reach beyond the frames: 904 on each side."""
