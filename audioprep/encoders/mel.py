"""Log-mel spectrogram, stacked to token frames, and its approximate inverse.

Shapes: `B` windows, `T` samples, `F` token frames, `M = 4 F` spectrogram frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audioprep.encoders.mel_grid import CONTEXT, DIM, HOP, N_FFT, N_MELS, SAMPLE_RATE, STACK

FLOOR = 1e-10
"""Power 100 dB below a full-scale sine: digital silence and 16-bit dither give the same value."""

_CPU_ROWS = 128
_BAND_GROUP = 32


def mel_filterbank() -> Tensor:
    """Triangular filters, evenly spaced on the HTK mel scale from 0 Hz to 12 kHz, each with peak 1.

    Returns:
        float32 `[1 + N_FFT / 2, N_MELS]`.
    """
    top = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, N_MELS + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0.0).float()


class LogMel:
    """Natural logarithm of the mel power spectrum, 100 frames a second, relative to a full-scale sine.

    Spectrogram frame `m` belongs to samples `[240 m, 240 (m + 1))`, and its 2048-sample Hann window is
    centred on them; MuQ centres on the first of them and reflects the signal at its ends.
    """

    def __init__(self, device: str | torch.device) -> None:
        window = torch.hann_window(N_FFT, dtype=torch.float64)
        self._window = (window * (2.0 / window.sum())).float().to(device)
        # Neighbouring bands share few bins: four narrow products cost a quarter of one full product.
        self._bands: list[tuple[slice, slice, Tensor]] = []
        filters = mel_filterbank()
        for first in range(0, N_MELS, _BAND_GROUP):
            bands = slice(first, first + _BAND_GROUP)
            used = filters[:, bands].any(dim=1).nonzero()
            bins = slice(int(used[0]), int(used[-1]) + 1)
            self._bands.append((bins, bands, filters[bins, bands].contiguous().to(device)))

    @torch.inference_mode()
    def __call__(self, samples: Tensor) -> Tensor:
        """Stacks four spectrogram frames to one token frame.

        Args:
            samples: float32 `[B, CONTEXT + 960 F + CONTEXT]` at 24 kHz.

        Returns:
            float32 `[B, F, 512]`, on the samples' device.
        """
        frames = samples.unfold(-1, N_FFT, HOP)
        batch, count, _ = frames.shape
        out = torch.empty(batch, count, N_MELS, device=samples.device)
        if samples.is_cuda:
            self._log_mel(frames, out)
        else:
            # Pieces that fit into the cache. Their shape is the same for every window, which also makes
            # the rounding of a window's values independent of its neighbours.
            for window, result in zip(frames, out, strict=True):
                for first in range(0, count, _CPU_ROWS):
                    rows = slice(first, first + _CPU_ROWS)
                    self._log_mel(window[rows], result[rows])
        return out.view(batch, count // STACK, DIM)

    def _log_mel(self, frames: Tensor, out: Tensor) -> None:
        spectrum = torch.fft.rfft(frames * self._window)
        power = spectrum.real.square().add_(spectrum.imag.square())
        for bins, bands, filters in self._bands:
            out[..., bands] = power[..., bins] @ filters
        out.clamp_min_(FLOOR).log_()


def griffin_lim(log_mel: Tensor, *, iterations: int = 32, momentum: float = 0.99, seed: int = 0) -> Tensor:
    """Sound whose log-mel spectrogram is close to the given one; phases are guessed, so it sounds hollow.

    The linear spectrum comes from the non-negative least-squares problem by multiplicative updates
    (Lee and Seung 2001), the phases from the fast Griffin-Lim algorithm (Perraudin et al. 2013).

    Args:
        log_mel: `[F, 512]` as `LogMel` gives it.
        iterations: of the phase search.
        momentum: of the phase search; 0 is the original algorithm.
        seed: of the first phases.

    Returns:
        float32 `[960 F]` on the CPU, in [-1, 1].
    """
    mel = log_mel.float().cpu().reshape(-1, N_MELS).exp()
    magnitude = _mel_to_power(mel).sqrt().T
    window = torch.hann_window(N_FFT)
    magnitude = magnitude * (window.sum() / 2.0)
    length = (mel.shape[0] - 1) * HOP + N_FFT

    def to_sound(spectrum: Tensor) -> Tensor:
        return _overlap_add(torch.fft.irfft(spectrum.T, n=N_FFT) * window, window, length)

    def to_spectrum(sound: Tensor) -> Tensor:
        return torch.fft.rfft(sound.unfold(0, N_FFT, HOP) * window).T

    generator = torch.Generator().manual_seed(seed)
    angles = torch.rand(magnitude.shape, generator=generator) * (2.0 * math.pi)
    spectrum = torch.polar(magnitude, angles)
    previous = torch.zeros_like(spectrum)
    for _ in range(iterations):
        rebuilt = to_spectrum(to_sound(spectrum))
        ahead = rebuilt + momentum * (rebuilt - previous)
        spectrum = magnitude * ahead / ahead.abs().clamp_min(1e-12)
        previous = rebuilt
    return to_sound(spectrum)[CONTEXT:-CONTEXT].clamp(-1.0, 1.0)


def _mel_to_power(mel: Tensor, iterations: int = 50) -> Tensor:
    """Non-negative `[M, 1025]` whose mel bands come close to `mel` `[M, 128]`."""
    filters = mel_filterbank()
    target = mel @ filters.T
    power = mel @ (filters / filters.sum(0)).T + FLOOR
    for _ in range(iterations):
        power *= target / (power @ filters @ filters.T).clamp_min(1e-20)
    return power


def _overlap_add(frames: Tensor, window: Tensor, length: int) -> Tensor:
    """Sums windowed frames `[M, 2048]`, and divides by the summed squares of the window."""

    def fold(rows: Tensor) -> Tensor:
        columns = rows.T[None]
        return torch.nn.functional.fold(columns, (1, length), (1, N_FFT), stride=(1, HOP)).flatten()

    return fold(frames) / fold(window.square().expand_as(frames)).clamp_min(1e-4)
