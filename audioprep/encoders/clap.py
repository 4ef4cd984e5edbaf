"""The encoder `clap`: audio and text as vectors of one space, by LAION's models (Wu et al. 2023, arXiv 2211.06687).

The model hears ten seconds. Of a longer recording LAION's code and transformers take ten seconds at random, so that
two calls on one file disagree. Here windows follow each other at a fixed hop over the whole recording; nothing is
random. Where the last one would reach past the end, it is moved back to end with the recording.

Weights are a folder or repository of `transformers.ClapModel`, or one of LAION's own `.pt` files.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import local_files, sha256_of_weights
from audioprep.encoders.clap_checkpoint import Checkpoint, find_checkpoint
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 77  # LAION trained with texts cut to this
_TEXTS = 64  # at once, on a GPU


class Settings(TorchSettings):
    """Settings of `clap`."""

    file: str | None = Field(default=None, description="A .pt of LAION's in that folder or repository.")
    hop_seconds: float = Field(
        default=10.0, gt=0, description="From one window to the next; at most the 10 s that the model hears at once."
    )
    pooling: Literal["mean", "all"] = Field(
        default="mean", description="mean: one vector an item, the mean of its windows'; all: keep every window's."
    )
    int16: bool = Field(
        default=True,
        description="Cut samples to 16 bits first, as LAION did in training and laion-clap does with files and arrays.",
    )
    backend: Literal["transformers", "laion"] = Field(
        default="transformers", description="laion: the package laion-clap, for LAION's .pt files."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Folder or repository of the text's tokenizer. Default: the weights' own, or RoBERTa's.",
    )


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; hashes the weights, and does not import torch.

    Raises:
        UsageError: the weights are missing or not CLAP's, the hop is longer than a window, or laion-clap is missing.
    """
    return _describe(settings, find_checkpoint(settings.weights, settings.file))


def _describe(settings: Settings, checkpoint: Checkpoint) -> EncoderSpec:
    features = checkpoint.features
    hop = round(settings.hop_seconds * features.sample_rate)
    if not 0 < hop <= features.clip:
        seconds = features.clip / features.sample_rate
        raise UsageError(f"clap: hop_seconds {settings.hop_seconds:g}: choose more than 0 and up to {seconds:g} s")
    return EncoderSpec(
        name="clap",
        kind="embedding",
        sample_rate=features.sample_rate,
        channels=1,
        hop_length=hop,
        window=hop,
        # The last window of a file may be moved back by up to a hop.
        left_context=hop,
        right_context=features.clip - hop,
        # A CPU is busy with a single window, and rounding never depends on a neighbour.
        batch_size=batch_size(settings, cpu=1, cuda=32),
        fingerprint=sha256_of_weights(checkpoint.files),
        dim=checkpoint.dim,
        pooling="mean" if settings.pooling == "mean" else None,
        settings=numeric_settings(settings)
        | {"hop_seconds": settings.hop_seconds, "int16": settings.int16, "backend": settings.backend}
        | {"transformers": version("transformers")}
        | ({"laion-clap": _laion_version()} if settings.backend == "laion" else {}),
    )


def _laion_version() -> str:
    try:
        return version("laion-clap")
    except PackageNotFoundError as error:
        raise UsageError("clap: the backend laion needs the package laion-clap: pip install laion-clap") from error


def load(settings: Settings) -> Clap:
    """Loads the audio tower onto the device; the text tower follows at the first text.

    Raises:
        UsageError: as `describe`, or the weights do not fit their configuration, or hold code.
        SystemFault: the device cannot be used.
    """
    checkpoint = find_checkpoint(settings.weights, settings.file)
    return Clap(_describe(settings, checkpoint), settings, checkpoint)


class _Towers(Protocol):
    def audio(self, clips: Tensor) -> Tensor: ...
    def text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor: ...


class Clap(TorchEncoder):
    """Encodes audio and texts with given weights; made by `load`."""

    def __init__(self, spec: EncoderSpec, settings: Settings, checkpoint: Checkpoint) -> None:
        super().__init__(spec, settings)
        self._clip = checkpoint.features.clip
        self._int16 = settings.int16
        self._tokenizer_at = settings.tokenizer or checkpoint.tokenizer
        self._tokenizer: Any = None
        self._towers = self._load(settings.backend, checkpoint)

    def _load(self, backend: str, checkpoint: Checkpoint) -> _Towers:
        if backend == "laion":
            from audioprep.encoders.clap_laion import LaionTowers

            return LaionTowers(checkpoint, self.device)
        from audioprep.encoders.clap_model import ClapTowers

        return ClapTowers(checkpoint, self.device)

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        """`[B, 1, T]` to unit vectors `[B, 1, D]`, NaN where activations are not finite."""
        import torch

        from audioprep.encoders.clap_features import cut_clips, int16_round_trip

        clips = cut_clips(samples[:, 0], valid, self._clip)
        if self._int16:
            clips = int16_round_trip(clips)
        # A CPU cuts a product up by rows, and rounds accordingly: one clip at a time is the same wherever it stands.
        pieces = clips.split(1 if self.device.type == "cpu" else len(clips))
        return _unit(torch.cat([self._towers.audio(piece) for piece in pieces]))[:, None]

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeds texts; each one's vector is the same whatever the others are.

        Texts are cut to 77 tokens, as LAION does.

        Returns:
            Unit vectors float32 `[n, D]`.

        Raises:
            UsageError: there is no tokenizer, or the weights have no text tower that fits.
        """
        import torch

        on_gpu = self.device.type == "cuda"
        size = _TEXTS if on_gpu else 1
        vectors = [np.empty((0, self.spec.dim or 0), np.float32)]
        for first in range(0, len(texts), size):
            batch = list(texts[first : first + size])
            fill = [""] * (size - len(batch))  # on a GPU the shape of a batch is always the same
            tokens = self._tokenize(batch + fill, padding="max_length" if on_gpu else False).to(self.device)
            with torch.inference_mode(), self._precision():
                found = self._towers.text(tokens["input_ids"], tokens["attention_mask"])
            vectors.append(_unit(found)[: len(batch)].cpu().numpy())
        return np.concatenate(vectors)

    def _tokenize(self, texts: list[str], padding: bool | str) -> Any:
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._tokenizer_at)
        return self._tokenizer(texts, padding=padding, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")


def _load_tokenizer(where: str) -> Any:
    from transformers import RobertaTokenizerFast

    remedy = "give the setting tokenizer: a folder or repository with RoBERTa's tokenizer"
    try:
        folder = local_files(
            where,
            ["tokenizer.json|vocab.json"],
            encoder="clap's texts",
            optional=["merges.txt", "tokenizer_config.json"],
        )
        return RobertaTokenizerFast.from_pretrained(folder)
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')}; to embed texts, {remedy}") from error
    except Exception as error:  # tokenizers raises nothing more exact
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(f"{where}: its tokenizer cannot be read ({first_line}); {remedy}") from error


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1, float32; all NaN where one value is not finite."""
    import torch
    import torch.nn.functional as F

    vectors = vectors.float()
    return F.normalize(vectors, dim=-1).where(vectors.isfinite().all(-1, keepdim=True), torch.nan)
