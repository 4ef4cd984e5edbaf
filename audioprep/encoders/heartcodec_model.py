"""HeartCodec's encoder as one network, and how its parts get their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.modeling_utils import no_init_weights

from audioprep.encoders.checkpoints import load_strict
from audioprep.encoders.heartcodec_checkpoint import Checkpoint
from audioprep.encoders.heartcodec_decoder import HeartDecoder
from audioprep.encoders.heartcodec_features import FeatureExtractors
from audioprep.encoders.heartcodec_query import QueryEncoder
from audioprep.encoders.heartcodec_rvq import ResidualQuantizer
from audioprep.errors import UsageError

Part = TypeVar("Part", bound=nn.Module)


class HeartEncoder(nn.Module):
    """Windows of sound to what the quantizer takes.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.feature_extractors = FeatureExtractors(config["feature_extractors"])
        music, whisper, wavlm = (2 * width for width in self.feature_extractors.widths)
        self.query = QueryEncoder(config["query"], music, whisper, wavlm)

    def forward(self, samples: Tensor) -> Tensor:
        """All at once: float32 `[B, 2, T]` to `[B, F, D]`."""
        channels = samples.flatten(0, 1)
        features = self.feature_extractors(channels, self.feature_extractors.resampled(channels))
        return self.query(*(torch.cat(feature.unflatten(0, (-1, 2)).unbind(1), dim=-1) for feature in features))

    def window(self, samples: Tensor) -> Tensor:
        """A single window, of which two equal channels are computed once: float32 `[2, T]` to `[F, D]`.

        On a CPU, the resampling filter and WavLM's attention round otherwise in a batch of one; so those get both.
        """
        channels = samples[:1] if torch.equal(*samples) else samples
        features = self.feature_extractors(channels, self.feature_extractors.resampled(samples))
        return self.query(*(torch.cat([*feature.expand(2, -1, -1)], dim=-1)[None] for feature in features))[0]


def load_encoder(checkpoint: Checkpoint) -> HeartEncoder:
    """
    Raises:
        UsageError: the weights cannot be read, or do not fit the configuration.
    """
    config, path = checkpoint.encoder_config, checkpoint.encoder
    model = _with_weights(lambda: HeartEncoder(config), checkpoint.encoder_tensors(), path)
    model.feature_extractors.drop_unused()
    return model


def load_quantizer(checkpoint: Checkpoint) -> ResidualQuantizer:
    """
    Raises:
        UsageError: as `load_encoder`.
    """
    config, path = checkpoint.decoder_config, checkpoint.decoder[0]
    return _with_weights(lambda: ResidualQuantizer(config), checkpoint.quantizer_tensors(), path)


def load_decoder(checkpoint: Checkpoint) -> HeartDecoder:
    """
    Raises:
        UsageError: as `load_encoder`.
    """
    config, path = checkpoint.decoder_config, checkpoint.decoder[0]
    return _with_weights(lambda: HeartDecoder(config), checkpoint.decoder_tensors(""), path)


def _with_weights(build: Callable[[], Part], tensors: dict[str, Tensor], path: Path) -> Part:
    try:
        with torch.device("meta"), no_init_weights():
            model = build()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(f"{path}: no HeartCodec can be built from its configuration ({error})") from error
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    load_strict(model, tensors, path, assign=True)
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):  # weight normalization: always the same result
            parametrize.remove_parametrizations(module, "weight")
    return model.requires_grad_(False).eval()
