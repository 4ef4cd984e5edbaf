"""Where CLAP's weights lie and how they want their spectrogram; reads only JSON, and does not import torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audioprep.encoders.checkpoints import first_of, local_files
from audioprep.errors import UsageError

ROBERTA = "FacebookAI/roberta-base"
"""The text tower of every LAION-CLAP began as this, and it has kept the vocabulary."""

_FEATURES = "preprocessor_config.json|processor_config.json"
_WEIGHTS = "model.safetensors|pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class Features:
    """How a clip becomes a log-mel spectrogram; the defaults are those of LAION's models.

    Attributes:
        sample_rate: in Hz.
        clip: samples that the model hears at once.
        n_fft: length of a Hann window.
        hop: from one window to the next.
        bands: mel bands.
        low: lower end of the lowest band in Hz.
        high: upper end of the highest one in Hz.
        htk: filters of height 1 on HTK's mel scale (torchaudio's, in fused models); else of area 1 on Slaney's
            (librosa's, in the others).
    """

    sample_rate: int = 48_000
    clip: int = 480_000
    n_fft: int = 1024
    hop: int = 480
    bands: int = 64
    low: float = 50.0
    high: float = 14_000.0
    htk: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that are on this machine.

    Attributes:
        path: of the file with the tensors.
        files: all whose content decides about a value.
        config: of `transformers.ClapConfig`; None for LAION's own `.pt`, whose shapes say the same.
        features: for a `.pt` only a first guess: see `clap_keys.laion_features`.
        tokenizer: folder or repository of the text's tokenizer.
    """

    path: Path
    files: tuple[Path, ...]
    config: dict[str, Any] | None
    features: Features
    tokenizer: str

    @property
    def dim(self) -> int:
        return self.config.get("projection_dim", 512) if self.config else 512


def find_checkpoint(weights: str, file: str | None = None) -> Checkpoint:
    """Finds LAION's `.pt`, or a folder or repository that `transformers` wrote (and downloads that).

    Args:
        weights: a file, a folder, or a repository.
        file: a `.pt` in that folder or repository; None: it is as `transformers` wrote it.

    Raises:
        UsageError: the weights are not there, are of another model, or want to be fed in a way that CLAP is not.
    """
    found = local_files(weights, [file] if file else ["config.json", _FEATURES, _WEIGHTS], encoder="clap")
    if file and found.is_dir():
        found /= file
    if found.is_file():
        return Checkpoint(found, (found,), None, Features(), ROBERTA)
    config, features = found / "config.json", first_of(found, _FEATURES)
    values = _json(config)
    if values.get("model_type") != "clap":
        raise UsageError(f"{config}: is of a model {values.get('model_type')}, and clap needs a ClapModel")
    path = first_of(found, _WEIGHTS)
    return Checkpoint(path, (config, features, path), values, _features(features), weights)


def _features(path: Path) -> Features:
    values = _json(path)
    values = values.get("feature_extractor", values)  # newer versions keep all of a processor in one file
    try:
        rate = values["sampling_rate"]
        features = Features(
            sample_rate=rate,
            clip=rate * values["max_length_s"],
            n_fft=values["fft_window_size"],
            hop=values["hop_length"],
            bands=values["feature_size"],
            low=values["frequency_min"],
            high=values["frequency_max"],
            htk=values["truncation"] == "fusion",
        )
        padding = values["padding"]
    except KeyError as error:
        raise UsageError(f"{path}: has no {error}, which a ClapFeatureExtractor's file has; fetch it again") from error
    if padding != "repeatpad":
        raise UsageError(f"{path}: fills up short clips by {padding!r}; only 'repeatpad' is known here")
    return features


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); fetch it again, or give other weights") from error
