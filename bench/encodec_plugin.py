"""An encoder of a neural codec's cost, for `bench/pipeline.py`; also how small an encoder plug-in is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from audioprep.encoders.base import EncoderSpec

if TYPE_CHECKING:
    from transformers import EncodecModel

_HOP, _CODEBOOKS, _BANDWIDTH = 320, 8, 6.0


class Settings(BaseModel):
    """Settings of the plug-in."""

    device: str = "cpu"


def describe(settings: Settings) -> EncoderSpec:
    return EncoderSpec(
        name="encodec", kind="tokens", sample_rate=24_000, channels=1, hop_length=_HOP, window=_HOP * 375,
        left_context=0, right_context=0, batch_size=1, fingerprint="random weights of seed 0",
        num_codebooks=_CODEBOOKS, codebook_size=1024,
    )  # fmt: skip


def load(settings: Settings) -> Encodec:
    import torch
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    model: Any = EncodecModel(EncodecConfig())
    return Encodec(describe(settings), model.eval().to(settings.device))


class Encodec:
    """EnCodec at 24 kHz and 6 kbit/s (Défossez et al. 2022), in windows of 5 s."""

    def __init__(self, spec: EncoderSpec, model: EncodecModel) -> None:
        self.spec = spec
        self._model = model

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        import torch

        with torch.inference_mode():
            found: Any = self._model.encode(torch.from_numpy(samples).to(self._model.device), bandwidth=_BANDWIDTH)
        return found.audio_codes[0].transpose(1, 2).cpu().numpy()
