from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from muq import MuQ, MuQConfig
from numpy.typing import NDArray

W2V2 = {
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 10_000,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "swish",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "conformer_conv_dropout": 0.1,
    "conv_depthwise_kernel_size": 31,
    "layer_norm_eps": 1e-5,
    "layerdrop": 0.0,
    "feat_extract_activation": "gelu",
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "max_source_positions": 5000,
}
STAT = {"melspec_2048_mean": 6.768444971712967, "melspec_2048_std": 18.417922652295623}
DIM, DEPTH = 32, 3


def save_muq(folder: Path, seed: int = 0, **changes: Any) -> MuQ:
    """A tiny MuQ with random weights, saved as upstream saves it."""
    torch.manual_seed(seed)
    sizes = {"conv_dim": 8, "encoder_dim": DIM, "encoder_depth": DEPTH, "codebook_size": 16}
    model = MuQ(MuQConfig(**{**sizes, "stat": STAT, "w2v2_config": W2V2, **changes}))  # pyright: ignore
    torch.manual_seed(seed)  # MuQ has seeded it
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):  # as training would leave them
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.normal_(module.bias, std=0.1)
    model.save_pretrained(folder)
    random.seed()
    return model.eval()


def plain(model: MuQ, samples: NDArray[np.float32], layer: int = DEPTH) -> NDArray[np.float32]:
    """Upstream's own call on a whole recording `[1, T]`: `[F, D]`."""
    with torch.inference_mode():
        return model(torch.from_numpy(samples), output_hidden_states=True).hidden_states[layer][0].numpy()
