"""What HeartCodec hears: features of one channel from three pretrained models, 25 a second.

- a conformer over a mel spectrogram, as MusicFM has it (Won et al. 2024, arXiv 2311.03318): hidden states 2 and 11;
- WavLM base (Chen et al. 2022, arXiv 2110.13900): the mean of hidden states 6 to 9, at 16 kHz;
- Whisper's encoder (Radford et al. 2023, arXiv 2212.04356): its output, at 16 kHz.

Names of layers are those of the published checkpoint. Layers above the hidden states that are used are loaded and let
go. Shapes: `N` channels of sound, `T` samples, `M` mel frames, `L` frames of a feature, `D` dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2ConformerConfig, WavLMConfig, WavLMModel, WhisperConfig, WhisperFeatureExtractor
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

FRAME = 960
"""Samples of a feature's frame."""

_TAIL = 240  # samples of silence after a window: without them WavLM has a frame too few
_ACOUSTIC, _SEMANTIC = 2, 11
_WAVLM = slice(6, 10)
_as_it_is: Any = torch.compiler.disable  # for what is no work for a compiler


class FeatureExtractors(nn.Module):
    """The three models.

    Args:
        config: `feature_extractors` of the encoder's configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        whisper = WhisperConfig(**config["whisper_config"])
        whisper._attn_implementation = "eager"  # upstream's: others round otherwise
        self.whisper_encoder = WhisperEncoder(whisper)
        self.wavlm_encoder = WavLMModel(WavLMConfig(**config["wavlm_config"]))
        self.muencoder = MusicEncoder(config["muencoder_config"])
        # Made on the CPU, as upstream does: a GPU's sines round otherwise, and ids would change.
        with torch.device("cpu"):
            self.register_buffer("_to_16k", resampling_kernel(), persistent=False)
        self._log_mel = WhisperFeatureExtractor(feature_size=whisper.num_mel_bins)
        self.widths = self.muencoder.width, whisper.d_model, self.wavlm_encoder.config.hidden_size

    def drop_unused(self) -> None:
        """Lets go what lies above the hidden states that are used; call it once the weights are loaded."""
        self.muencoder.drop_unused()
        self.wavlm_encoder.encoder.layers = self.wavlm_encoder.encoder.layers[: _WAVLM.stop - 1]

    def forward(self, samples: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Args:
            samples: windows of single channels, float32 `[N, T]` at 24 kHz, `T` a multiple of 1920.
            low: of `resampled`, for the same channels and perhaps more: WavLM hears all of them.

        Returns:
            acoustic, semantic, Whisper's and WavLM's features, each `[N, T / 960, D]`.
        """
        frames = samples.shape[1] // FRAME
        on_cpu, copied = _start_copy(low[: len(samples)])
        acoustic, semantic = self.muencoder(samples)
        wavlm = torch.stack(self.wavlm_encoder(low, output_hidden_states=True).hidden_states[_WAVLM]).mean(0)
        # While a GPU computes the above, the CPU computes what upstream, too, computes there.
        mel = self._mel(on_cpu, copied).to(low.device, non_blocking=True)
        whisper = self.whisper_encoder(mel).last_hidden_state[:, : 2 * frames]
        return acoustic, semantic, _pairs(whisper), _pairs(wavlm)

    def resampled(self, samples: Tensor) -> Tensor:
        """24 to 16 kHz, with a little silence after it: `[N, T]` to `[N, 2 / 3 (T + 240)]`."""
        samples = F.pad(samples, (0, _TAIL))
        kernel = self.get_buffer("_to_16k")
        width = (kernel.shape[-1] - 3) // 2
        with torch.autocast(samples.device.type, enabled=False):
            pairs = F.conv1d(F.pad(samples, (width, width + 3))[:, None], kernel, stride=3)
        return pairs.transpose(1, 2).flatten(1)[:, : math.ceil(2 * samples.shape[1] / 3)]

    @_as_it_is
    def _mel(self, samples: Tensor, copied: torch.cuda.Event | None) -> Tensor:
        """Whisper's log-mel spectrogram of 30 s, `[N, bands, 3000]`, on the CPU."""
        if copied:
            copied.synchronize()
        with torch.autocast("cpu", enabled=False):
            features = self._log_mel(samples.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
        return features.pin_memory() if copied else features


@_as_it_is
def _start_copy(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The same on the CPU, and what a GPU sets when it is there."""
    if not tensor.is_cuda:
        return tensor, None
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return copy, copied


def _pairs(features: Tensor) -> Tensor:
    """The mean of each two frames: `[N, 2 L, D]` to `[N, L, D]`."""
    return features.unflatten(1, (-1, 2)).mean(dim=2)


def resampling_kernel() -> Tensor:
    """The filters `[2, 1, 23]` by which torchaudio's `Resample` goes from three samples to two.

    A sinc cut by a Hann window of six zero crossings on either side, at 0.99 of the new Nyquist frequency; in float64,
    then rounded.
    """
    old, new, crossings = 3, 2, 6
    cutoff = new * 0.99
    width = math.ceil(crossings * old / cutoff)
    places = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = torch.arange(0, -new, -1)[:, None, None] / new
    time = ((phases + places) * cutoff).clamp(-crossings, crossings)
    window = torch.cos(time * math.pi / crossings / 2) ** 2
    return (torch.sinc(time) * window * (cutoff / old)).float()


class MusicEncoder(nn.Module):
    """Mel spectrogram, four of whose frames become one by convolutions, and conformers (Gulati et al. 2020)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self._mean, self._std = config["mean"], config["std"]
        self.preprocessor_melspec_2048 = _LogMel(config["n_fft"], config["hop_length"], config["n_mels"])
        conformer = Wav2Vec2ConformerConfig(**config["conformer_config"])
        self.width = conformer.hidden_size
        self.conv = _Subsampling(config["conv_dim"], config["n_mels"], self.width)
        self.conformer = Wav2Vec2ConformerEncoder(conformer)

    def drop_unused(self) -> None:
        self.conformer.layers = self.conformer.layers[:_SEMANTIC]
        self.conformer.set_submodule("layer_norm", nn.Identity())  # of the last layer alone
        del self.conformer.pos_conv_embed  # which no forward pass uses

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, T]` to hidden states 2 and 11, `[N, T / 960, D]` each; call `drop_unused` before."""
        mel = (self.preprocessor_melspec_2048(samples)[..., :-1] - self._mean) / self._std
        states = self.conformer(self.conv(mel), output_hidden_states=True).hidden_states
        return states[_ACOUSTIC], states[_SEMANTIC]


class _LogMel(nn.Module):
    """Power in mel bands, in decibels; window and filters are the checkpoint's."""

    def __init__(self, n_fft: int, hop: int, bands: int) -> None:
        super().__init__()
        self._hop = hop
        self.mel_stft = nn.Module()
        self.mel_stft.spectrogram = nn.Module()
        self.mel_stft.spectrogram.register_buffer("window", torch.empty(n_fft))
        self.mel_stft.mel_scale = nn.Module()
        self.mel_stft.mel_scale.register_buffer("fb", torch.empty(n_fft // 2 + 1, bands))

    def forward(self, samples: Tensor) -> Tensor:
        """`[N, T]` to `[N, bands, M]`, reflected at both ends."""
        window = self.mel_stft.get_buffer("spectrogram.window")
        filters = self.mel_stft.get_buffer("mel_scale.fb")
        with torch.autocast(samples.device.type, enabled=False):  # sums of hundreds of products
            spectrum = torch.stft(
                samples, len(window), self._hop, window=window, pad_mode="reflect", return_complex=True
            )  # fmt: skip
            power = spectrum.abs().pow_(2).transpose(1, 2) @ filters
            return power.clamp_(min=1e-10).log10_().mul_(10).transpose(1, 2)


class _Subsampling(nn.Module):
    """`[N, bands, M]` to `[N, M / 4, D]`."""

    def __init__(self, channels: int, bands: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_Residual(1, channels), _Residual(channels, channels))
        self.linear = nn.Linear(channels * bands // 4, dim)

    def forward(self, mel: Tensor) -> Tensor:
        return self.linear(self.conv(mel[:, None]).permute(0, 3, 1, 2).flatten(2))


class _Residual(nn.Module):
    """Two convolutions beside a third, which halve time and frequency."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, padding=1, stride=2)
        self.bn1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(wider)
        self.conv3 = nn.Conv2d(channels, wider, 3, padding=1, stride=2)
        self.bn3 = nn.BatchNorm2d(wider)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return out.add_(self.bn3(self.conv3(x))).relu_()
