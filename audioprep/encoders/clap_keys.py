"""Reads LAION's own CLAP checkpoints as weights of `transformers.ClapModel`.

LAION saves what its training script held: `{"epoch", "name", "state_dict", optimizers …}`, keys with `module.` before
them, and parts that no embedding needs (the classifier's head, the projections of the training loss). The
architecture is not written down anywhere: HTSAT-tiny, HTSAT-base and their sizes are read off the tensors' shapes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioprep.encoders.clap_checkpoint import Features
from audioprep.errors import UsageError

_AUDIO = "audio_branch."
_NOT_NEEDED = re.compile(
    r"(audio|text)_transform\.|logit_scale_[at]$|text_branch\.embeddings\.position_ids$"
    r"|audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|.*\.(attn_mask|relative_position_index)$"
)
_NAMES = (
    (re.compile(r"^audio_branch\.bn0\."), "audio_model.audio_encoder.batch_norm."),
    (re.compile(r"^audio_branch\."), "audio_model.audio_encoder."),
    (re.compile(r"^text_branch\."), "text_model."),
    (re.compile(r"^(audio|text)_projection\.0\."), r"\1_projection.linear1."),
    (re.compile(r"^(audio|text)_projection\.2\."), r"\1_projection.linear2."),
    (re.compile(r"(blocks\.\d+)\.norm1\."), r"\1.layernorm_before."),
    (re.compile(r"(blocks\.\d+)\.norm2\."), r"\1.layernorm_after."),
    (re.compile(r"(blocks\.\d+)\.mlp\.fc1\."), r"\1.intermediate.dense."),
    (re.compile(r"(blocks\.\d+)\.mlp\.fc2\."), r"\1.output.dense."),
    (re.compile(r"(blocks\.\d+)\.attn\.proj\."), r"\1.attention.output.dense."),
    (re.compile(r"(blocks\.\d+)\.attn\."), r"\1.attention.self."),
)


def laion_state(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by LAION's names, without what surrounds them.

    Raises:
        UsageError: it is none of LAION's.
    """
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    pairs = state.items() if isinstance(state, dict) else ()
    state = {str(name).removeprefix("module."): value for name, value in pairs if isinstance(value, Tensor)}
    if f"{_AUDIO}patch_embed.proj.weight" not in state or "text_branch.embeddings.word_embeddings.weight" not in state:
        raise UsageError(
            f"{path}: is no CLAP checkpoint of LAION's with HTSAT and RoBERTa. For weights of transformers give their "
            "folder."
        )
    return state


def laion_features(state: dict[str, Tensor]) -> Features:
    """How the clips of this checkpoint become spectrograms."""
    n_fft = state[f"{_AUDIO}spectrogram_extractor.stft.conv_real.weight"].shape[-1]
    return replace(Features(), n_fft=n_fft, bands=len(state[f"{_AUDIO}bn0.weight"]), htk=is_fused(state))


def is_fused(state: dict[str, Tensor]) -> bool:
    """Whether the checkpoint has the layers that fuse several crops of a long recording."""
    return any(".mel_conv2d." in name for name in state)


def laion_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Values for `transformers.ClapConfig`, from the shapes of LAION's tensors."""
    patches = state[f"{_AUDIO}patch_embed.proj.weight"]
    width, patch_size = patches.shape[0], patches.shape[-1]
    depths = _depths(state)
    blocks = [f"{_AUDIO}layers.{stage}.blocks.0." for stage in range(len(depths))]
    tables = [state[f"{block}attn.relative_position_bias_table"] for block in blocks]
    window = (isqrt(len(tables[0])) + 1) // 2  # a table has (2 window - 1) squared rows
    words = state["text_branch.embeddings.word_embeddings.weight"]
    layers = [name for name in state if re.fullmatch(r"text_branch\.encoder\.layer\.\d+\.output\.dense\.bias", name)]
    return {
        "projection_dim": len(state["audio_projection.0.bias"]),
        "audio_config": {
            "num_mel_bins": len(state[f"{_AUDIO}bn0.weight"]),
            "spec_size": 256,
            "patch_size": patch_size,
            "patch_stride": [patch_size, patch_size],
            "patch_embeds_hidden_size": width,
            "hidden_size": width * 2 ** (len(depths) - 1),
            "depths": depths,
            "num_attention_heads": [table.shape[1] for table in tables],
            "window_size": window,
            "mlp_ratio": len(state[f"{blocks[0]}mlp.fc1.bias"]) / width,
        },
        "text_config": {
            "vocab_size": len(words),
            "hidden_size": words.shape[1],
            "num_hidden_layers": len(layers),
            "num_attention_heads": max(1, words.shape[1] // 64),  # in RoBERTa of every size
            "intermediate_size": len(state["text_branch.encoder.layer.0.intermediate.dense.bias"]),
            "max_position_embeddings": len(state["text_branch.embeddings.position_embeddings.weight"]),
            "layer_norm_eps": 1e-5,  # RoBERTa's; transformers' CLAP has another default
        },
    }


def _depths(state: dict[str, Tensor]) -> list[int]:
    """Blocks in each stage of the audio tower."""
    found = {
        match.groups() for name in state if (match := re.match(r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)\.", name))
    }
    stages = [int(stage) for stage, _ in found]
    return [stages.count(stage) for stage in range(max(stages) + 1)]


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """LAION's tensors under the names of `transformers.ClapModel`, without those that no embedding needs."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if _NOT_NEEDED.match(name):
            continue
        for pattern, replacement in _NAMES:
            name = pattern.sub(replacement, name)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), torch.chunk(value, 3), strict=True):
                tensors[name.replace(".qkv.", f".{part}.")] = third
        else:
            tensors[name] = value
    return tensors
