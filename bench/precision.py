"""What the faster modes of the neural encoders change: each beside float32, on the same device and the same music.

The models have their original sizes and random weights, which spread their values less evenly than trained ones: the
shares tell which encoder is sensitive, and how much more its later codebooks are than its first. For your own weights
and audio: `audioprep verify OUT --reencode 50 --set dtype=bfloat16`.

Tokens: the share of codes that differ, of all codebooks, of the first and of the last. Latents and embeddings: the
root mean square of the difference to that of the values, and the smallest cosine of a frame.

Run: `python bench/precision.py [--encoders dac encodec mimi xcodec muq-vq vae clap heartcodec]
[--modes dtype=bfloat16] [--seconds 20] [--device cpu] [--tiny]`; on a GPU also `--modes dtype=bfloat16 tf32=true
compile=true`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decode import write_music
from encoders import ENCODERS, registered
from heartcodec import make_heartcodec
from numpy.typing import NDArray

from audioprep.audio import load_audio
from audioprep.encoders.registry import load_encoder
from audioprep.stages.encode import encode_samples


def draw_codebooks(layers: Any, embedding: torch.Tensor, table: str) -> None:
    """Makes codewords of an untrained residual quantizer's own inputs `[1, D, F]`, so that many of them are used.

    Args:
        layers: its stages.
        embedding: of some music.
        table: what a codebook calls its buffer of codewords.
    """
    for layer in layers:
        words = layer.codebook.get_buffer(table)
        frames = embedding[0].T
        noise = torch.randn(words.shape) * frames.std(0)
        words.copy_(frames[torch.randint(len(frames), (len(words),))] + noise / 2)
        embedding = embedding - layer.decode(layer.encode(embedding))


def make_encodec(folder: Path, tiny: bool) -> dict[str, Any]:
    from transformers import EncodecConfig, EncodecModel

    small: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "codebook_dim": 16}
    model: Any = EncodecModel(EncodecConfig(**(small if tiny else {})))
    with torch.no_grad():
        draw_codebooks(model.quantizer.layers, model.encoder(_music(folder)), "embed")
    model.save_pretrained(folder)
    return {"weights": str(folder)}


def make_mimi(folder: Path, tiny: bool) -> dict[str, Any]:
    from transformers import MimiConfig, MimiModel

    small: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "num_hidden_layers": 1, "upsample_groups": 16}
    model: Any = MimiModel(MimiConfig(**(small if tiny else {})))
    with torch.no_grad():
        features = model.encoder_transformer(model.encoder(_music(folder)).transpose(1, 2))[0].transpose(1, 2)
        embedding = model.downsample(features)
        for half in model.quantizer.children():
            draw_codebooks(half.layers, half.input_proj(embedding), "embed_sum")
    model.save_pretrained(folder)
    return {"weights": str(folder)}


def make_xcodec(folder: Path, tiny: bool) -> dict[str, Any]:
    from transformers import DacConfig, HubertConfig, XcodecConfig, XcodecModel

    small: dict[str, Any] = {}
    if tiny:
        sizes: dict[str, Any] = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7}
        ratios: dict[str, Any] = {"downsampling_ratios": [8, 5, 4, 2], "upsampling_ratios": [8, 5, 4, 2]}
        ratios |= {"encoder_hidden_size": 4, "decoder_hidden_size": 32}
        small["acoustic_model_config"] = DacConfig(hidden_size=16, **ratios)
        small["semantic_model_config"] = HubertConfig(hidden_size=16, **sizes)
    model: Any = XcodecModel(XcodecConfig(**small)).eval()
    with torch.no_grad():
        sound = _music(folder, 16_000)
        semantic = model.encoder_semantic(model._extract_semantic_features(sound).transpose(1, 2))
        acoustic = model.acoustic_encoder(sound)[..., : semantic.shape[-1]]
        both = torch.cat([acoustic, semantic[..., : acoustic.shape[-1]]], dim=1)
        draw_codebooks(model.quantizer.quantizers, model.fc(both.transpose(1, 2)).transpose(1, 2), "embed")
    model.save_pretrained(folder)
    return {"weights": str(folder)}


def _music(folder: Path, rate: int = 24_000) -> torch.Tensor:
    """Other music than what is encoded later: `[1, 1, T]`."""
    write_music(folder / "fit.wav", 40)
    return torch.from_numpy(load_audio(folder / "fit.wav", sample_rate=rate, channels=1)[0][None, :, 20 * rate :])


def make_clap(folder: Path, tiny: bool) -> dict[str, Any]:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    audio: dict[str, Any] = {"patch_embeds_hidden_size": 16, "depths": [1, 1, 1, 1], "hidden_size": 128}
    text: dict[str, Any] = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text["num_attention_heads"] = 1
    config = ClapConfig(audio_config=audio, text_config=text) if tiny else ClapConfig()
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    return {"weights": str(folder)}


MAKERS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {name: maker for name, (maker, _) in ENCODERS.items()}
MAKERS |= {"mimi": make_mimi, "encodec": make_encodec, "xcodec": make_xcodec, "clap": make_clap}
MAKERS["heartcodec"] = make_heartcodec


def tokens_changed(exact: NDArray[Any], faster: NDArray[Any]) -> str:
    changed = (exact != faster).mean(axis=0)
    return f"{changed.mean():.2%} of codes; first codebook {changed[0]:.2%}, last of {len(changed)} {changed[-1]:.2%}"


def values_changed(exact: NDArray[Any], faster: NDArray[Any]) -> str:
    exact, faster = exact.astype(np.float64), faster.astype(np.float64)
    error = np.sqrt(np.square(exact - faster).mean() / np.square(exact).mean())
    lengths = np.linalg.norm(exact, axis=-1) * np.linalg.norm(faster, axis=-1)
    return f"relative error {error:.2e}, smallest cosine {((exact * faster).sum(-1) / lengths).min():.6f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--modes", nargs="+", default=["dtype=bfloat16"], metavar="NAME=VALUE")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script out")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        music = Path(temporary, "music.wav")
        write_music(music, options.seconds)
        for encoder in options.encoders:
            folder = Path(temporary, encoder)
            folder.mkdir()
            torch.manual_seed(0)
            name, settings = registered(encoder, MAKERS[encoder](folder, options.tiny))
            settings["device"] = options.device
            values = []
            for mode in ["", *options.modes]:
                loaded = load_encoder(name, settings | ({} if mode == "" else dict([mode.split("=", 1)])))
                spec = loaded.spec
                samples, _ = load_audio(music, sample_rate=spec.sample_rate, channels=spec.channels)
                values.append(encode_samples(loaded, samples))
                if mode:
                    compare = tokens_changed if spec.kind == "tokens" else values_changed
                    print(f"{encoder:10}{mode:18}{compare(values[0], values[-1])}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
