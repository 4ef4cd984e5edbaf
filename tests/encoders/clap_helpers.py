"""A tiny CLAP in the layouts of transformers and of LAION, and sound to feed it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizerFast
from transformers.models.roberta.tokenization_roberta import bytes_to_unicode

from audioprep.encoders.clap import Clap

RATE, CLIP = 48_000, 480_000
AUDIO = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 32,
    "depths": [2, 1, 1],
    "num_attention_heads": [2, 2, 4],
    "mlp_ratio": 2.0,
}
TEXT = {"vocab_size": 261, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 32}


def sound(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Tones that come and go over noise: float32 `[T]` at 48 kHz; no two seconds are alike."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [
        np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time / period) ** 2
        for pitch, period in zip(random.uniform(80, 6000, 4), random.uniform(3, 40, 4), strict=True)
    ]
    return (0.1 * np.sum(tones, axis=0) + 0.01 * random.standard_normal(len(time))).astype(np.float32)


def write_tokenizer(folder: Path) -> None:
    """RoBERTa's tokenizer with the 256 bytes as its only words."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values(), "<mask>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def write_clap(folder: Path, *, fused: bool = False, safe: bool = True, seed: int = 0) -> ClapModel:
    """Saves a model, its feature extractor and its tokenizer as the repositories of laion have them."""
    torch.manual_seed(seed)
    audio = AUDIO | ({"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {})
    model = ClapModel(ClapConfig(audio_config=audio, text_config=TEXT)).eval()
    randomise(model)
    model.save_pretrained(folder, safe_serialization=safe)
    write_tokenizer(folder)
    ClapProcessor(
        ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50),
        RobertaTokenizerFast.from_pretrained(folder),
    ).save_pretrained(folder)
    return model


def randomise(model: torch.nn.Module) -> None:
    """Weights far enough from zero for embeddings to differ, and statistics as log-mel spectrograms have them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean += torch.randn_like(module.running_mean) - 30
                assert module.running_var is not None
                module.running_var *= 300


def of_file(encoder: Clap, *files: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first window of each file, and which of its samples are the file's own."""
    left, length = encoder.spec.left_context, encoder.spec.length
    samples = np.zeros((len(files), 1, length), np.float32)
    valid = np.zeros((len(files), 2), np.int64)
    for row, file in enumerate(files):
        end = min(length, left + len(file))
        samples[row, 0, left:end] = file[: end - left]
        valid[row] = left, end
    return samples, valid


def reference(model: ClapModel, folder: Path, clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """What transformers gives for a clip of at most 10 s: `[D]`."""
    extractor: Any = ClapFeatureExtractor.from_pretrained(folder)
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt")
    features["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)  # it calls a random clip long where none is
    with torch.inference_mode():
        return model.get_audio_features(**features)[0].numpy()
