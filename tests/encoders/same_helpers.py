"""Tiny SAME autoencoders in the published layout, and what one makes of a whole file, written down plainly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

PATCH, STRIDE, WIDTH, HEAD, INNER, DIM = 4, 4, 16, 8, 24, 6
HOP = PATCH * STRIDE
SMALL = {"chunk_size": 2 * STRIDE, "chunk_midpoint_shift": True, "transformer_depths": [5]}
LARGE = {"sliding_window": [1, 1], "transformer_depths": [3]}


def same_config(encoder: dict[str, Any], channels: int = 2) -> dict[str, Any]:
    """The model config of an autoencoder, with what is in the published ones; `encoder` as `SMALL` or `LARGE`."""
    layers = {
        "channels": WIDTH // 2, "c_mults": [2], "strides": [STRIDE], "latent_dim": DIM, "dim_heads": HEAD,
        "ff_mult": INNER / WIDTH, "checkpointing": True, "differential": True, "variable_stride": True,
        "mask_noise": 0.1,
    }  # fmt: skip
    return {
        "model_type": "autoencoder",
        "sample_rate": 44_100,
        "sample_size": 2**16,
        "model": {
            "encoder": {"type": "same", "config": layers | {"in_channels": channels * PATCH} | encoder},
            "decoder": {"type": "same", "config": {}},
            "bottleneck": {"type": "softnorm", "config": {"dim": DIM, "noise_augment_dim": 0, "auto_scale": True}},
            "pretransform": {"type": "patched", "config": {"channels": channels, "patch_size": PATCH}},
            "latent_dim": DIM,
            "downsampling_ratio": HOP,
            "io_channels": channels,
        },
    }


def whole_model(config: dict[str, Any]) -> dict[str, Any]:
    """The model config of a diffusion model on its latents."""
    pretransform = {"type": "autoencoder", "iterate_batch": True, "scale": 2.0, "config": config["model"]}
    return {
        "model_type": "diffusion_cond",
        "sample_rate": config["sample_rate"],
        "model": {"pretransform": pretransform, "conditioning": {}, "diffusion": {}, "io_channels": DIM},
    }


def same_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random ones, under the published names."""
    generator = torch.Generator().manual_seed(seed)
    layers = config["model"]["encoder"]["config"]

    def weight(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 1.5 / shape[1] ** 0.5

    def vector(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.3 * torch.randn(shape, generator=generator)

    def norm(name: str, dim: int) -> dict[str, Tensor]:
        one = {"alpha": vector(1, around=1.0), "gamma": vector(dim, around=1.0), "beta": vector(dim)}
        return {f"{name}.{kind}": tensor for kind, tensor in one.items()}

    first = "encoder.layers.0"
    tensors = {
        f"{first}.mapping.weight_g": vector(WIDTH, 1, 1, around=2.0),
        f"{first}.mapping.weight_v": weight(WIDTH, layers["in_channels"], 1),
        f"{first}.mapping.bias": vector(WIDTH),
        f"{first}.new_tokens": vector(1, 1, WIDTH),
        "encoder.layers.2.weight": weight(DIM, WIDTH),
        "encoder.layers.2.bias": vector(DIM),
        "bottleneck.scaling_factor": vector(1, DIM, 1, around=1.0),
        "bottleneck.bias": vector(1, DIM, 1),
        "bottleneck.noise_scaling_factor": torch.ones(1, 0, 1),
        "bottleneck.running_std": vector(1, around=2.0),
        "decoder.layers.1.weight": weight(WIDTH, DIM),
    }
    for block in (f"{first}.transformers.{number}" for number in range(layers["transformer_depths"][0])):
        tensors |= {
            f"{block}.self_attn.to_qkv.weight": weight(5 * WIDTH, WIDTH),
            f"{block}.self_attn.to_out.weight": weight(WIDTH, WIDTH),
            f"{block}.ff.ff.0.proj.weight": weight(2 * INNER, WIDTH),
            f"{block}.ff.ff.0.proj.bias": vector(2 * INNER),
            f"{block}.ff.ff.2.weight": weight(WIDTH, INNER),
            f"{block}.ff.ff.2.bias": vector(WIDTH),
            f"{block}.rope.inv_freq": 10_000 ** (-torch.arange(HEAD // 4) / (HEAD // 4)),
            **norm(f"{block}.pre_norm", WIDTH),
            **norm(f"{block}.ff_norm", WIDTH),
            **norm(f"{block}.self_attn.q_norm", HEAD),
            **norm(f"{block}.self_attn.k_norm", HEAD),
        }
    return tensors


def save_same(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as of `stabilityai/SAME-S`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def whole_file(config: dict[str, Any], tensors: dict[str, Tensor], samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents `[F, D]` of samples `[C, T]`, with one matrix that says which token sees which."""
    return _Whole(config, tensors).encode(torch.from_numpy(samples)).numpy()


class _Whole:
    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.tensors, self.layers = (
            {key: value.double() for key, value in tensors.items()},
            config["model"]["encoder"]["config"],
        )
        self.group = STRIDE + 1

    def encode(self, samples: Tensor) -> Tensor:
        frames = -(-samples.shape[1] // HOP)
        chunk = None if "sliding_window" in self.layers else self.layers["chunk_size"] // STRIDE
        latents = -(-frames // (chunk or 1)) * (chunk or 1)
        samples = torch.nn.functional.pad(samples, (0, latents * HOP - samples.shape[1])).double()
        get = self.tensors
        direction = get["encoder.layers.0.mapping.weight_v"][..., 0]
        mapping = get["encoder.layers.0.mapping.weight_g"][..., 0] * direction / direction.norm(dim=1, keepdim=True)
        x = []
        for number in range(latents * STRIDE):
            x.append(mapping @ samples[:, number * PATCH :][:, :PATCH].flatten() + get["encoder.layers.0.mapping.bias"])
            if number % STRIDE == STRIDE - 1:
                x.append(get["encoder.layers.0.new_tokens"][0, 0])
        out = self.chunks(torch.stack(x), chunk) if chunk else self.slide(torch.stack(x))
        out = out[self.group - 1 :: self.group] @ get["encoder.layers.2.weight"].T + get["encoder.layers.2.bias"]
        out = out * get["bottleneck.scaling_factor"][0, :, 0] + get["bottleneck.bias"][0, :, 0]
        return (out / get["bottleneck.running_std"])[:frames].float()

    @property
    def blocks(self) -> list[str]:
        return [f"encoder.layers.0.transformers.{number}" for number in range(self.layers["transformer_depths"][0])]

    def slide(self, x: Tensor) -> Tensor:
        left, right = (groups * self.group for groups in self.layers["sliding_window"])
        distance = torch.arange(len(x)) - torch.arange(len(x))[:, None]
        for block in self.blocks:
            x = self.block(block, x, torch.arange(len(x)), (distance >= -left) & (distance <= right))
        return x

    def chunks(self, x: Tensor, chunk: int) -> Tensor:
        size = chunk * self.group
        half = size // 2 if self.layers["chunk_midpoint_shift"] else 0
        for number, block in enumerate(self.blocks):
            if half and number == len(self.blocks) // 2:
                x = torch.cat([x[:half], x, x[-half:]])
            place = torch.arange(len(x))
            x = self.block(block, x, place % size, place[:, None] // size == place // size)
        return x[half : len(x) - half]

    def block(self, name: str, x: Tensor, place: Tensor, sees: Tensor) -> Tensor:
        get = self.tensors
        parts = (self.norm(f"{name}.pre_norm", x) @ get[f"{name}.self_attn.to_qkv.weight"].T).split(WIDTH, dim=1)
        heads = []
        for first in range(0, WIDTH, HEAD):
            q, k, v, q_other, k_other = (part[:, first : first + HEAD] for part in parts)
            heads.append(
                (self.weights(name, q, k, place, sees) - self.weights(name, q_other, k_other, place, sees)) @ v
            )
        x = x + torch.cat(heads, dim=1) @ get[f"{name}.self_attn.to_out.weight"].T
        inner = (
            self.norm(f"{name}.ff_norm", x) @ get[f"{name}.ff.ff.0.proj.weight"].T + get[f"{name}.ff.ff.0.proj.bias"]
        )
        value, gate = inner.split(INNER, dim=1)
        return x + (value * gate * gate.sigmoid()) @ get[f"{name}.ff.ff.2.weight"].T + get[f"{name}.ff.ff.2.bias"]

    def weights(self, name: str, q: Tensor, k: Tensor, place: Tensor, sees: Tensor) -> Tensor:
        q = self.rotate(name, self.norm(f"{name}.self_attn.q_norm", q), place)
        k = self.rotate(name, self.norm(f"{name}.self_attn.k_norm", k), place)
        return (q @ k.T / HEAD**0.5).masked_fill(~sees, -torch.inf).softmax(dim=1)

    def rotate(self, name: str, x: Tensor, place: Tensor) -> Tensor:
        pairs = HEAD // 4
        turn = torch.exp(1j * place[:, None] * self.tensors[f"{name}.rope.inv_freq"])
        turned = torch.complex(x[:, :pairs], x[:, pairs : 2 * pairs]) * turn
        return torch.cat([turned.real, turned.imag, x[:, 2 * pairs :]], dim=1)

    def norm(self, name: str, x: Tensor) -> Tensor:
        alpha, gamma, beta = (self.tensors[f"{name}.{kind}"] for kind in ("alpha", "gamma", "beta"))
        return gamma * torch.tanh(alpha * x) + beta
