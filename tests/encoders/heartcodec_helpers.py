from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from encoder_helpers import music
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from audioprep.encoders import heartcodec
from audioprep.encoders.heartcodec_decoder import HeartDecoder
from audioprep.encoders.heartcodec_model import HeartEncoder

WINDOW, FRAMES, HOP = 714_240, 372, 1920
CODES, CODEBOOKS = 64, 4

ENCODER: dict[str, Any] = {
    "version": "vqv12",
    "chunk_samples": WINDOW,
    "feature_extractors": {
        "whisper_config": {
            "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
            "num_mel_bins": 20, "max_source_positions": 1500,
        },
        "wavlm_config": {
            "hidden_size": 16, "num_hidden_layers": 10, "num_attention_heads": 1, "intermediate_size": 16,
            "conv_dim": [4] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
        },
        "muencoder_config": {
            "n_fft": 2048, "hop_length": 240, "n_mels": 16, "conv_dim": 4, "mean": 6.7, "std": 18.4,
            "conformer_config": {
                "hidden_size": 16, "num_hidden_layers": 12, "num_attention_heads": 1, "intermediate_size": 16,
                "hidden_act": "swish", "position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 5,
                "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
            },
        },
    },
    "query": {"dim": 32, "num_layers": 2, "head_dim": 32, "interval": 2},
}  # fmt: skip
DECODER: dict[str, Any] = {
    "dim": 32, "codebook_size": CODES, "codebook_dim": 8, "num_quantizers": CODEBOOKS, "attention_head_dim": 4,
    "in_channels": 32 + 2 * 8, "num_attention_heads": 2, "num_layers": 2, "num_layers_2": 1, "out_channels": 8,
    "latent_hidden_dim": 4, "init_channel": 1,
}  # fmt: skip


def save_heartcodec(folder: Path, seed: int = 0, encoder: dict[str, Any] = ENCODER, **decoder: Any) -> Path:
    """A HeartCodec with random weights, tiny by default, in two folders laid out as the published repositories."""
    from audioprep.encoders.heartcodec_checkpoint import _DECODER, _ENCODER, _filled

    torch.manual_seed(seed)
    encoder_model = HeartEncoder(_filled(encoder, _ENCODER))
    decoder_model = HeartDecoder(_filled(DECODER | decoder, _DECODER))
    for model in (encoder_model, decoder_model):
        randomise(model)
    fit_quantizer(decoder_model.flow_matching.vq_embed, outputs(encoder_model))
    (folder / "encoder").mkdir(parents=True)
    (folder / "decoder").mkdir()
    (folder / "encoder" / "encoder_config.json").write_text(json.dumps(encoder))
    save_file({f"encoder.{key}": value for key, value in _state(encoder_model)}, folder / "encoder/encoder.safetensors")
    (folder / "decoder" / "config.json").write_text(json.dumps(DECODER | decoder | {"model_type": "heartcodec"}))
    save_file(dict(_state(decoder_model)), folder / "decoder/model.safetensors")
    return folder


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(key, value.contiguous()) for key, value in model.state_dict().items()]


def randomise(model: nn.Module) -> None:
    """What training would leave where a fresh model has nothing, or nothing of interest."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            last = name.rpartition(".")[2]
            if last == "window":
                value.copy_(torch.hann_window(len(value)))
            elif last == "fb":
                bins, bands = value.shape
                value.copy_(torchaudio.functional.melscale_fbanks(bins, 0.0, 12_000.0, bands, 24_000))
            elif last == "inv_freq":
                value.copy_(1 / 10_000 ** (torch.arange(len(value)) / len(value)))
            elif last == "running_mean":
                value.normal_(std=0.1)
            elif last == "running_var":
                value.uniform_(0.5, 2.0)
            elif last in ("cls_token", "scale", "zero_cond_embedding1") or "scale_shift_table" in last:
                value.normal_(std=0.3)
            elif last in ("embed_avg", "cluster_size"):
                value.uniform_()
            elif last == "initted":
                value.fill_(True)


@torch.no_grad()
def outputs(encoder: HeartEncoder) -> Tensor:
    """What the encoder gives for music: `[F, D]`."""
    used = deepcopy(encoder).eval()
    used.feature_extractors.drop_unused()
    return used.window(torch.from_numpy(stereo(30.0, 0)[:, :WINDOW]))


@torch.no_grad()
def fit_quantizer(quantizer: Any, rows: Tensor) -> None:
    """Makes the rows use all codebooks: a random network gives rows that are much alike."""
    projected = rows @ quantizer.project_in.weight.T
    deviation = projected.std(0)
    quantizer.project_in.weight /= deviation[:, None]
    quantizer.project_in.bias.copy_(-projected.mean(0) / deviation)
    left = quantizer.project_in(rows)
    for layer in quantizer.layers:
        codewords = layer._codebook.embed[0]
        codewords.copy_(left[torch.randint(len(left), (len(codewords),))] * 0.9)
        left = left - codewords[torch.cdist(left, codewords).argmin(1)]


def stereo(seconds: float, seed: int) -> NDArray[np.float32]:
    """float32 `[2, T]` at 24 kHz."""
    return np.concatenate([music(seconds, 2 * seed), music(seconds, 2 * seed + 1)])


def load(folder: Path, **settings: Any) -> heartcodec.HeartCodec:
    return heartcodec.load(heartcodec.Settings(**where(folder), **settings))


def where(folder: Path) -> dict[str, Any]:
    """The settings that name the weights."""
    return {"weights": str(folder / "encoder"), "decoder": str(folder / "decoder")}
