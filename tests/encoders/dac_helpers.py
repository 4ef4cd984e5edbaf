"""Tiny DACs with random weights, and what upstream's own code makes of a whole file."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DacConfig, DacModel

from audioprep.encoders import dac
from audioprep.encoders.dac_checkpoint import find_checkpoint
from audioprep.encoders.edges import EdgeMask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # audiotools and torch's older weight_norm
    from dac import DAC

STRIDES = (2, 4, 5)  # an odd one, as at 16 and 24 kHz
HOP = 40
RATE = 16_000
BOOKS = 4
WINDOW = 496 * HOP


def published(strides: tuple[int, ...] = STRIDES, **changes: Any) -> DAC:
    """A `dac.DAC` with random weights, biases and frequencies: silence does not stay silence, codes are diverse."""
    sizes = {"encoder_dim": 8, "decoder_dim": 32, "n_codebooks": BOOKS, "codebook_size": 64, "codebook_dim": 4}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rates = {"encoder_rates": list(strides), "decoder_rates": list(strides[::-1])}
        model = DAC(**sizes | rates | {"sample_rate": RATE} | changes).eval()  # pyright: ignore[reportArgumentType]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if name.endswith("bias"):
            parameter.normal_(std=0.05)
        elif name.endswith("alpha"):
            parameter.uniform_(0.3, 2.0)
        elif name.endswith("weight_g") and not name.startswith("decoder"):
            parameter.mul_(torch.empty_like(parameter).uniform_(1.0, 1.6))
    return model


def save_pth(model: DAC, path: Path) -> Path:
    model.save(str(path), package=False)
    return path


def save_folder(model: DAC, folder: Path, **settings: Any) -> Path:
    """The same weights as `DacModel.save_pretrained` writes them, matched by their order and not by name."""
    config = DacConfig(
        encoder_hidden_size=model.encoder_dim,
        downsampling_ratios=model.encoder_rates,
        decoder_hidden_size=model.decoder_dim,
        upsampling_ratios=model.decoder_rates,
        n_codebooks=model.n_codebooks,
        codebook_size=model.codebook_size,
        codebook_dim=model.codebook_dim,  # pyright: ignore[reportArgumentType]
        sampling_rate=model.sample_rate,
        hidden_size=model.latent_dim,
    )
    copy = DacModel(config)
    for part in ("encoder", "quantizer", "decoder"):
        theirs, ours = (_layers(getattr(whole, part)) for whole in (model, copy))
        for source, target in zip(theirs, ours, strict=True):
            for name in ("weight", "bias", "alpha"):
                if hasattr(target, name):
                    getattr(target, name).data.copy_(_value(source, name))
    copy.save_pretrained(folder, **settings)
    return folder


def _layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if hasattr(layer, "weight") or hasattr(layer, "alpha")]


def _value(layer: Any, name: str) -> torch.Tensor:
    if name == "weight" and hasattr(layer, "weight_g"):
        return layer.weight_v * (layer.weight_g / layer.weight_v.flatten(1).norm(dim=1)[:, None, None])
    return getattr(layer, name)


def load(path: Path, **settings: Any) -> dac.Dac:
    return dac.load(dac.Settings(weights=str(path), **settings))


def all_at_once(encoder: dac.Dac, path: Path, backend: str = "transformers") -> dac.Dac:
    """As on a GPU: whole batches of whole windows, with masks at a file's ends."""
    assert encoder.spec.num_codebooks
    make = dac._PARTS[backend]
    encoder._parts = make(find_checkpoint(str(path)), encoder.spec.num_codebooks, encoder.device, True)
    encoder._edges = EdgeMask(encoder._parts.encoder, encoder.spec.hop_length)
    return encoder


def noise(length: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (1, length)).astype(np.float32)


def upstream(model: DAC, samples: NDArray[np.float32]) -> NDArray[np.int64]:
    """Codes `[F, K]` of the whole file, by upstream's preprocess and encode."""
    with torch.inference_mode():
        padded = model.preprocess(torch.from_numpy(samples.copy())[None], model.sample_rate)
        return model.encode(padded)[1][0].T.numpy()


def upstream_decoded(model: DAC, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Samples `[1, T]`; after odd strides, T is a few samples less than whole frames."""
    with torch.inference_mode():
        latents: Any = model.quantizer.from_codes(torch.from_numpy(codes.T[None].copy()))
        return model.decode(latents[0])[0].numpy()
