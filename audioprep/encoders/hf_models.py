"""The models behind `hf:REPO`: each row of a batch is encoded at its own length, as upstream encodes a whole file.

So a file's first and last frames are padded by the model itself, at the file's ends, and nothing that fills a row or
a batch is ever computed. What a row gives depends on the row alone.

The convolutions of EnCodec, Mimi and X-Codec run over a few seconds at a time on a CPU: their layers then stay in
its cache, which doubles their speed.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import load_strict, load_tensors
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings
from audioprep.errors import UsageError

_PIECE_SECONDS = 4
_OLD_NAMES = re.compile(r"\bweight_([gv])$")  # of weight normalization, in files from before torch 2.1


def load_codec(
    config: dict[str, Any], weights: Path, stem: tuple[int, int], spec: EncoderSpec, settings: TorchSettings
) -> HfCodec:
    """Makes the model that a configuration describes, with the weights of a file.

    Args:
        config: what `config.json` holds.
        weights: safetensors, or a pickle of tensors.
        stem: samples that the convolutions before an LSTM or attention see to the left and right of a frame.

    Raises:
        UsageError: the weights cannot be read, or do not fit the configuration.
    """
    name, codec = _CODECS[config["model_type"]]
    if not hasattr(transformers, name):
        raise UsageError(f"{weights}: transformers {transformers.__version__} has no {name}: install a newer one")
    model = _build(getattr(transformers, name), config, weights)
    wanted = model.state_dict().keys()
    tensors = {_OLD_NAMES.sub(_new_name, key): tensor for key, tensor in load_tensors(weights).items()}
    load_strict(model, {key: tensor for key, tensor in tensors.items() if key in wanted}, weights)
    return codec(spec, settings, model, stem)


def _build(model_class: Any, config: dict[str, Any], weights: Path) -> Any:
    try:
        if semantic := config.get("semantic_model_config"):
            # As a dict, upstream takes it for HuBERT's whatever it is, or looks for it on the Hub.
            config = config | {"semantic_model_config": transformers.AutoConfig.for_model(**semantic)}
        return model_class(model_class.config_class.from_dict(config))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        path = weights.with_name("config.json")
        raise UsageError(f"{path}: no {model_class.__name__} can be built from it ({error}); fetch it again") from error


def _new_name(old: re.Match[str]) -> str:
    return f"parametrizations.weight.original{'gv'.index(old[1])}"


class HfCodec(TorchEncoder):
    """A codec of transformers; a subclass knows one family."""

    def __init__(self, spec: EncoderSpec, settings: TorchSettings, model: Any, stem: tuple[int, int]) -> None:
        super().__init__(spec, settings)
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):  # weight normalization: always the same result
                parametrize.remove_parametrizations(module, "weight")
        self._model = model.to(self.device, torch.float32).eval()
        for module in model.modules():
            for name in {"stride", "kernel_size", "padding_total"} & module._buffers.keys():
                # Upstream reads these numbers for each layer: on a GPU each time would wait for what runs there.
                module._buffers[name] = module._buffers[name].cpu()
        self._stem = stem

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        spec = self.spec
        frames = spec.window // spec.hop_length
        codes = valid.new_zeros(len(samples), frames, spec.num_codebooks or 1)
        rows = [(row, start, end) for row, (start, end) in enumerate(valid.tolist()) if end]
        embeddings = self._embed([samples[row : row + 1, :, start:end] for row, start, end in rows])
        for (row, start, _), embedding in zip(rows, embeddings, strict=True):
            first = (spec.left_context - start) // spec.hop_length
            own = embedding[..., first : first + frames]
            with torch.autocast(self.device.type, enabled=False):
                found = self._quantize(own.float())[:, 0].T
            codes[row, : len(found)] = torch.where(own.isfinite().all(), found, -1)
        return codes

    def decode(self, codes: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turns tokens `[F, K]` into samples float32 `[C, F * hop_length]`."""
        with torch.inference_mode():
            tokens = torch.from_numpy(codes.astype(np.int64)).to(self.device)
            return self._decode(tokens.T[None])[0].float().cpu().numpy()

    @abstractmethod
    def _embed(self, rows: list[Tensor]) -> list[Tensor]:
        """Turns each row's own samples `[1, C, T]` into what is quantized: `[1, D, F]`."""

    @abstractmethod
    def _quantize(self, embedding: Tensor) -> Tensor:
        """Turns `[1, D, F]` into codes `[K, 1, F]`."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Turns codes `[1, K, F]` into samples `[1, C, T]`."""

    def _convolve(self, layers: Callable[[Tensor], Tensor], samples: Tensor, hop_length: int) -> Tensor:
        """Applies a stack of convolutions to `[1, C, T]`; on a CPU, to a few seconds at a time."""
        if self.device.type != "cpu":
            return layers(samples)
        left, right = (-(-reach // hop_length) * hop_length for reach in self._stem)
        piece = self.spec.sample_rate * _PIECE_SECONDS // hop_length * hop_length
        parts: list[Tensor] = []
        for start in range(0, samples.shape[-1], piece):
            first = max(0, start - left)
            out = layers(samples[..., first : start + piece + right])
            parts.append(out[..., (start - first) // hop_length :][..., : piece // hop_length])
        return torch.cat(parts, -1)


class Encodec(HfCodec):
    """EnCodec: convolutions, an LSTM, one more convolution, residual quantization."""

    def __init__(self, spec: EncoderSpec, settings: TorchSettings, model: Any, stem: tuple[int, int]) -> None:
        super().__init__(spec, settings, model, stem)
        layers = model.encoder.layers
        (place,) = (place for place, layer in enumerate(layers) if hasattr(layer, "lstm"))
        self._before, self._lstm, self._after = nn.Sequential(*layers[:place]), layers[place], layers[place + 1 :]
        model.quantizer.layers = model.quantizer.layers[: spec.num_codebooks]

    def _embed(self, rows: list[Tensor]) -> list[Tensor]:
        features = [self._convolve(self._before, row, self.spec.hop_length) for row in rows]
        return [nn.Sequential(*self._after)(feature) for feature in self._recall(features)]

    def _recall(self, features: list[Tensor]) -> list[Tensor]:
        """Applies the LSTM to each `[1, D, F]`: it goes from left to right, so what follows a row does not matter."""
        if self.device.type == "cpu" or not features:
            return [self._lstm(feature) for feature in features]
        # A GPU takes as long for one row as for many, and gets them in one shape.
        batch = features[0].new_zeros(self.rows, features[0].shape[1], self.spec.length // self.spec.hop_length)
        for row, feature in enumerate(features):
            batch[row, :, : feature.shape[-1]] = feature[0]
        out = self._lstm(batch)
        return [out[row : row + 1, :, : feature.shape[-1]] for row, feature in enumerate(features)]

    def _quantize(self, embedding: Tensor) -> Tensor:
        return self._model.quantizer.encode(embedding)

    def _decode(self, codes: Tensor) -> Tensor:
        return self._model.decode(codes[None], [None], return_dict=False)[0]


class Mimi(HfCodec):
    """Mimi: convolutions, attention to what came before, half the frames, split residual quantization.

    Attention reaches as far as the configuration's `sliding_window` says, as in kyutai's own code. transformers 4.57
    forgets that without flash attention, and gives other codes for more than 10 s (see its pull request 43971).
    """

    def _embed(self, rows: list[Tensor]) -> list[Tensor]:
        model, step = self._model, self.spec.hop_length // 2
        features = [self._attend(model.encoder_transformer, self._convolve(model.encoder, row, step)) for row in rows]
        return [model.downsample(feature) for feature in features]

    def _attend(self, transformer: Any, features: Tensor) -> Tensor:
        """Applies a transformer to `[1, D, F]`."""
        frames, reach = features.shape[-1], self._model.config.sliding_window
        mask = None
        if frames > reach:
            place = torch.arange(frames, device=features.device)
            back = place[:, None] - place
            mask = ((back >= 0) & (back < reach))[None, None]
        return transformer(features.transpose(1, 2), attention_mask=mask, return_dict=False)[0].transpose(1, 2)

    def _quantize(self, embedding: Tensor) -> Tensor:
        return self._model.quantizer.encode(embedding, self.spec.num_codebooks)

    def _decode(self, codes: Tensor) -> Tensor:
        model = self._model
        return model.decoder(self._attend(model.decoder_transformer, model.upsample(model.quantizer.decode(codes))))


class Xcodec(HfCodec):
    """X-Codec: DAC's convolutions beside HuBERT's layers, residual quantization of both."""

    def __init__(self, spec: EncoderSpec, settings: TorchSettings, model: Any, stem: tuple[int, int]) -> None:
        super().__init__(spec, settings, model, stem)
        model.quantizer.quantizers = model.quantizer.quantizers[: spec.num_codebooks]

    def _embed(self, rows: list[Tensor]) -> list[Tensor]:
        return [self._embed_row(nn.functional.pad(row, (0, -row.shape[-1] % self.spec.hop_length))) for row in rows]

    def _embed_row(self, samples: Tensor) -> Tensor:
        model = self._model
        semantic = model.encoder_semantic(model._extract_semantic_features(samples).transpose(1, 2))
        acoustic = self._convolve(model.acoustic_encoder, samples, self.spec.hop_length)
        both = torch.cat([acoustic, semantic], dim=1)
        return model.fc(both.transpose(1, 2)).transpose(1, 2)

    def _quantize(self, embedding: Tensor) -> Tensor:
        return self._model.quantizer.encode(embedding)

    def _decode(self, codes: Tensor) -> Tensor:
        return self._model.decode(codes, return_dict=False)


_CODECS: dict[str, tuple[str, type[HfCodec]]] = {
    "encodec": ("EncodecModel", Encodec),
    "mimi": ("MimiModel", Mimi),
    "xcodec": ("XcodecModel", Xcodec),
}
