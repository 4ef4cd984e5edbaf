"""What CLAP hears: a clip of ten seconds cut out of a window, and its log-mel spectrogram.

Shapes: `B` clips, `T` samples of a window, `N` samples of a clip, `M` frames of a spectrogram.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from audioprep.encoders.clap_checkpoint import Features

_FLOOR = 1e-10
_PIECE = 256  # frames at once: what fits into a CPU's cache


@torch.compiler.disable()  # it would be compiled anew for every length
def cut_clips(samples: Tensor, valid: Tensor, length: int) -> Tensor:
    """The last `length` samples of each window that are the file's own.

    Where the file is shorter, it is repeated as often as the whole of it fits, and then there are zeros: "repeatpad",
    with which LAION trained.

    Args:
        samples: float32 `[B, T]`.
        valid: int64 `[B, 2]`: first and one past the last of a file's own samples.
        length: `N`.

    Returns:
        float32 `[B, N]`; zeros for a row that only fills the batch.
    """
    clips = samples.new_zeros(len(samples), length)
    for clip, row, (first, end) in zip(clips, samples, valid.tolist(), strict=True):
        own = row[max(first, end - length) : end]
        if len(own):
            times = length // len(own)
            clip[: times * len(own)] = own.repeat(times)
    return clips


def int16_round_trip(samples: Tensor) -> Tensor:
    """Samples as they come back from 16 bits: clipped, and cut off towards zero rather than rounded, as LAION does."""
    return (samples.clamp(-1.0, 1.0) * 32767.0).trunc() / 32767.0


class LogMel(nn.Module):
    """Decibels of the mel power spectrum, as `transformers.ClapFeatureExtractor` computes them.

    The Fourier transform is taken in float64: in float32 the bands that are silent beside a loud tone would be off by
    a twentieth of a decibel. That costs a few milliseconds a clip.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, features: Features) -> None:
        super().__init__()
        self._features = features
        self.register_buffer("window", torch.hann_window(features.n_fft, dtype=torch.float64))
        filters = mel_filter_bank(
            num_frequency_bins=features.n_fft // 2 + 1,
            num_mel_filters=features.bands,
            min_frequency=features.low,
            max_frequency=features.high,
            sampling_rate=features.sample_rate,
            norm=None if features.htk else "slaney",
            mel_scale="htk" if features.htk else "slaney",
        )
        self.register_buffer("filters", torch.from_numpy(filters).float())

    def forward(self, clips: Tensor) -> Tensor:
        """float32 `[B, N]` to float32 `[B, M, bands]`, `M = 1 + N / hop`; the ends are mirrored."""
        n_fft, hop = self._features.n_fft, self._features.hop
        margin = n_fft // 2
        padded = F.pad(clips[:, None].double(), (margin, margin), mode="reflect")[:, 0]
        with torch.autocast(clips.device.type, enabled=False):
            pieces = [self._decibels(piece) for piece in padded.unfold(-1, n_fft, hop).split(_PIECE, dim=1)]
        return torch.cat(pieces, dim=1)

    def _decibels(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames * self.window)
        power = spectrum.real.square().add_(spectrum.imag.square())
        return 10.0 * (power.float() @ self.filters).clamp_min(_FLOOR).log10()
