"""The package `laion-clap` as a backend: its own model and spectrogram, with our loading of the weights.

Its `load_ckpt` would run code from the checkpoint, so it is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from audioprep.encoders.checkpoints import load_strict, load_tensors
from audioprep.encoders.clap_checkpoint import Checkpoint
from audioprep.encoders.clap_keys import is_fused, laion_state
from audioprep.errors import UsageError

_MODELS = {96: "HTSAT-tiny", 128: "HTSAT-base", 256: "HTSAT-large"}  # by the width of the first layer


class LaionTowers:
    """As `clap_model.ClapTowers`, for LAION's `.pt`.

    Args:
        checkpoint: of LAION's.
        device: the model computes there.

    Raises:
        UsageError: the package cannot get what it downloads, or the weights are of another layout.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        path = checkpoint.path
        if checkpoint.config is not None:
            raise UsageError(f"{path}: the backend laion reads LAION's .pt; for this folder choose transformers")
        with _downloads():
            from laion_clap.clap_module import create_model  # pyright: ignore[reportMissingImports]
            from laion_clap.training.data import get_audio_features  # pyright: ignore[reportMissingImports]
        state = laion_state(load_tensors(path), path)
        state.pop("text_branch.embeddings.position_ids", None)  # only older versions of transformers save it
        width = len(state["audio_branch.patch_embed.proj.bias"])
        if width not in _MODELS:
            raise UsageError(f"{path}: laion-clap has no HTSAT of width {width}; choose the backend transformers")
        self._fused = is_fused(state)
        fusion: Any = {"enable_fusion": self._fused, "fusion_type": "aff_2d" if self._fused else "None"}
        with _downloads():
            self._model, config = create_model(_MODELS[width], "roberta", device=device, **fusion)
        self._features = get_audio_features
        self._audio = config["audio_cfg"]
        load_strict(self._model, state, path)
        self._model.eval()

    def audio(self, clips: Tensor) -> Tensor:
        """float32 `[B, N]` to `[B, D]`."""
        mode = "fusion" if self._fused else "rand_trunc"
        inputs = [self._features({}, clip, len(clip), mode, "repeatpad", self._audio) for clip in clips]
        return self._model.get_audio_embedding(inputs)

    def text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 `[B, L]` each, to `[B, D]`."""
        return self._model.get_text_embedding({"input_ids": input_ids, "attention_mask": attention_mask})


@contextmanager
def _downloads() -> Iterator[None]:
    """Around what makes laion-clap download tokenizers or RoBERTa."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # without a network, transformers fails here with a TypeError as often as an OSError
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(
            "clap: laion-clap downloads roberta-base, bert-base-uncased and facebook/bart-base when it is imported, "
            f"and cannot ({first_line}). Run it once where there is a network, or choose the backend transformers."
        ) from error
