"""The two published checkpoints of HeartCodec: where their files are, what they say, and single tensors of them.

The encoder's repository has `encoder.safetensors` and `encoder_config.json` (or `config.json`); its keys begin with
`encoder.`. The decoder's has `config.json` and `model.safetensors`, in one piece or several; its keys begin with
`flow_matching.` and `scalar_model.`, or with `decoder.` before them. The residual quantizer, which encoding needs too,
is the decoder's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioprep.encoders.checkpoints import first_of, local_files
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 714_240
"""Samples that the encoder hears at once: 29.76 s, 372 frames."""

_QUANTIZER = "flow_matching.vq_embed."
_PARTS = ("flow_matching.", "scalar_model.")
_ENCODER_CONFIG = "config.json|encoder_config.json"
_INDEX = "model.safetensors.index.json"

# What a configuration may leave out, and is not what transformers takes for granted.
_ENCODER: dict[str, Any] = {
    "version": "vqv12",
    "chunk_samples": WINDOW,
    "feature_extractors": {
        "whisper_config": {
            "d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        },
        "wavlm_config": {},
        "muencoder_config": {
            "n_fft": 2048, "hop_length": 240, "n_mels": 128, "conv_dim": 512, "mean": 6.768444971712967,
            "std": 18.417922652295623,
            "conformer_config": {
                "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "hidden_act": "swish",
                "position_embeddings_type": "rotary",
            },
        },
    },
    "query": {"dim": 512, "num_layers": 6, "head_dim": 128, "interval": 2},
}  # fmt: skip
_DECODER: dict[str, Any] = {
    "dim": 512, "codebook_size": 8192, "use_cosine_sim": False, "codebook_dim": 32, "num_quantizers": 8,
    "attention_head_dim": 64, "in_channels": 1024, "norm_type": "ada_norm_single", "num_attention_heads": 24,
    "num_layers": 24, "num_layers_2": 6, "out_channels": 256, "num_bands": 1, "sample_rate": 48_000, "causal": True,
    "num_samples": 2, "downsample_factors": [3, 4, 4, 4, 5], "downsample_kernel_sizes": [6, 8, 8, 8, 10],
    "upsample_factors": [5, 4, 4, 4, 3], "upsample_kernel_sizes": [10, 8, 8, 8, 6], "latent_hidden_dim": 128,
    "default_kernel_size": 7, "delay_kernel_size": 5, "init_channel": 64, "res_kernel_size": 7,
}  # fmt: skip
# What is built in here.
_REQUIRED_ENCODER = {"version": "vqv12", "chunk_samples": WINDOW, "query.interval": 2}
_REQUIRED_DECODER = {"use_cosine_sim": False, "norm_type": "ada_norm_single", "num_bands": 1, "causal": True}


@dataclass(frozen=True)
class Checkpoint:
    """Both checkpoints.

    Attributes:
        encoder: the encoder's file.
        decoder: the decoder's files.
        encoder_config: with what it leaves out filled in.
        decoder_config: likewise.
    """

    encoder: Path
    decoder: tuple[Path, ...]
    encoder_config: dict[str, Any]
    decoder_config: dict[str, Any]

    def encoder_tensors(self) -> dict[str, Tensor]:
        """By name, without `encoder.`.

        Raises:
            UsageError: the file cannot be read, or is no encoder's.
        """
        return {name.removeprefix("encoder."): value for name, value in _tensors(self.encoder, self._encoder_keys)}

    def quantizer_tensors(self) -> dict[str, Tensor]:
        """Of the residual quantizer alone, by name without what comes before; the rest of the file is not read.

        Raises:
            UsageError: a file cannot be read, or is no decoder's.
        """
        return {name.removeprefix(_QUANTIZER): value for name, value in self.decoder_tensors(_QUANTIZER).items()}

    def decoder_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Those of the decoder whose name begins with `prefix`, by name without `decoder.`.

        Raises:
            UsageError: as `quantizer_tensors`.
        """
        return {
            _plain(key): value
            for path, keys in self._decoder_keys.items()
            for key, value in _tensors(path, (key for key in keys if _plain(key).startswith(prefix)))
        }

    def quantizer_sha256(self) -> str:
        """Of the names and bytes of the quantizer's tensors; does not import torch.

        Raises:
            UsageError: as `quantizer_tensors`.
        """
        digest = hashlib.sha256()
        for path, keys in self._decoder_keys.items():
            with path.open("rb") as file:
                # Of safetensors: a length of 8 bytes, that much JSON, and the tensors.
                start = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(start))
                for key in sorted(key for key in keys if _plain(key).startswith(_QUANTIZER)):
                    first, last = header[key]["data_offsets"]
                    file.seek(8 + start + first)
                    digest.update(_plain(key).encode() + file.read(last - first))
        return digest.hexdigest()

    @cached_property
    def _encoder_keys(self) -> list[str]:
        keys = _keys(self.encoder)
        if all(_plain(key).startswith(_PARTS) for key in keys):
            raise UsageError(
                f"{self.encoder}: is HeartCodec's decoder; give it as the setting decoder, and the encoder as weights"
            )
        if other := next((key for key in keys if not key.startswith("encoder.")), None):
            raise UsageError(f"{self.encoder}: holds {other}, and HeartCodec's encoder nothing but encoder.*")
        return keys

    @cached_property
    def _decoder_keys(self) -> dict[Path, list[str]]:
        found = {path: _keys(path) for path in self.decoder}
        for path, keys in found.items():
            if all(key.startswith("encoder.") for key in keys):
                raise UsageError(
                    f"{path}: is HeartCodec's encoder; give it as weights, and the decoder as the setting decoder"
                )
            if other := next((key for key in keys if not _plain(key).startswith(_PARTS)), None):
                raise UsageError(f"{path}: holds {other}, which HeartCodec's decoder has not; give its own repository")
        return found


def find_checkpoint(encoder: str, decoder: str) -> Checkpoint:
    """Finds the files of both, in folders or repositories of the Hub, and reads their configurations.

    Raises:
        UsageError: some are missing, or a configuration is not one that is built in here.
    """
    at = local_files(encoder, [_ENCODER_CONFIG, "encoder.safetensors"], encoder="heartcodec (its encoder)")
    weights = at if at.is_file() else at / "encoder.safetensors"
    config = first_of(weights.parent, _ENCODER_CONFIG)
    files = _decoder_files(decoder)
    decoder_config = files[0].with_name("config.json")
    return Checkpoint(
        weights,
        files,
        _read_config(config, _ENCODER, _REQUIRED_ENCODER),
        _read_config(decoder_config, _DECODER, _REQUIRED_DECODER),
    )


def _decoder_files(decoder: str) -> tuple[Path, ...]:
    what = "heartcodec (its decoder)"
    at = local_files(decoder, ["config.json", f"model.safetensors|{_INDEX}"], encoder=what)
    if at.is_file():
        return (at,)
    whole = at / "model.safetensors"
    if whole.is_file():
        return (whole,)
    try:
        names = sorted(set(json.loads((at / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{at / _INDEX}: cannot be read ({error}); fetch it again") from error
    local_files(decoder, names, encoder=what)
    return tuple(at / name for name in names)


def _read_config(path: Path, defaults: dict[str, Any], required: dict[str, Any]) -> dict[str, Any]:
    try:
        config = _filled(json.loads(path.read_text(encoding="utf-8")), defaults)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as a configuration ({error}); fetch it again") from error
    for name, value in required.items():
        if (found := reduce(getitem, name.split("."), config)) != value:
            raise UsageError(f"{path}: {name} is {found}, and HeartCodec is known here with {value} alone")
    return config


def _filled(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A configuration with defaults for what it leaves out, on every level."""
    return config | {
        name: _filled(config.get(name) or {}, value) if isinstance(value, dict) else config.get(name, value)
        for name, value in defaults.items()
    }


def _plain(key: str) -> str:
    """A key of the decoder as it was first published."""
    return key.removeprefix("decoder.")


def _keys(path: Path) -> list[str]:
    with _opened(path, "numpy") as file:
        return list(file.keys())


def _tensors(path: Path, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Single tensors of a file, by name."""
    with _opened(path, "pt") as file:
        for key in keys:
            yield key, file.get_tensor(key)


def _opened(path: Path, framework: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{path}: cannot be read as safetensors ({error}), which HeartCodec comes as; no other format is opened"
        ) from error
