"""HeartCodec tokens: audioprep beside a loop over files with heartlib's own `tokenize`, same weights and files.

The files are 44.1 kHz stereo flac of 20 to 300 s, shortened and measured as `bench/encoders.py` does it. The encoder
has its published size (0.53 billion weights, 2.15 GB in each process) and random weights. Of the decoder only the
codebooks are used, so the rest of it is small.

heartlib is on no registry: AUDIOPREP_HEARTLIB names a checkout of it that can encode (of autumn 2026 or later). Its
codec needs vector-quantize-pytorch, einx and frozendict; installed with `--no-deps` they change nothing else. With
--tiny and no checkout the loop calls audioprep's own encoder.

Exits 1 where audioprep gives less than the loop's hours on a CPU, or less than three times as many on a GPU.

Run: `AUDIOPREP_HEARTLIB=FOLDER python bench/heartcodec.py [--files 12] [--minutes 6] [--repeats 1] [--device cpu]
[--set tf32=true] [--tiny]`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import encoders
import numpy as np

encoders.SHORTEST = 20

DECODER: dict[str, Any] = {"num_attention_heads": 1, "num_layers": 1, "num_layers_2": 1, "init_channel": 1}
TINY: dict[str, Any] = {
    "whisper_config": {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 16},
    "wavlm_config": {
        "hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 16, "conv_dim": [4] * 7,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    },
    "muencoder_config": {
        "conv_dim": 4,
        "conformer_config": {
            "hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 16, "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        },
    },
}  # fmt: skip


def make_heartcodec(folder: Path, tiny: bool) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    from audioprep.encoders.heartcodec_checkpoint import find_checkpoint
    from audioprep.encoders.heartcodec_decoder import HeartDecoder
    from audioprep.encoders.heartcodec_model import HeartEncoder

    config = {"version": "vqv12"} | ({"feature_extractors": TINY} if tiny else {})
    for name, part, written in (("encoder", "encoder", config), ("decoder", "model", DECODER)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(written))
        (folder / name / f"{part}.safetensors").touch()
    paths = {"encoder": str(folder / "encoder"), "decoder": str(folder / "decoder")}
    found = find_checkpoint(**paths)
    # heartlib takes nothing for granted.
    (folder / "encoder" / "config.json").write_text(json.dumps(found.encoder_config))
    torch.manual_seed(0)
    for model, path, prefix in (
        (HeartEncoder(found.encoder_config), found.encoder, "encoder."),
        (HeartDecoder(found.decoder_config), found.decoder[0], ""),
    ):
        state = model.state_dict()
        for name, value in state.items():
            if name.endswith("running_var") or not value.is_floating_point():
                value.fill_(1)
            else:
                value.normal_(std=0.02)
        save_file({prefix + name: value.contiguous() for name, value in state.items()}, path)
    return {"weights": paths["encoder"], "decoder": paths["decoder"]}


def heartlib_loop(settings: dict[str, Any], corpus: encoders.Corpus, out: Path, device: str) -> encoders.Loop:
    import soundfile
    import torch

    tokenize = load_tokenize(settings, device)
    yield 0
    for path in corpus.files:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        np.save(out / path.stem, tokenize(torch.from_numpy(sound.T), rate).numpy())
        yield len(sound) / rate


def load_tokenize(settings: dict[str, Any], device: str) -> Callable[..., Any]:
    """heartlib's; or, to try the script out, our encoder's with the same arguments."""
    import torch

    if checkout := os.environ.get("AUDIOPREP_HEARTLIB"):
        package = ModuleType("heartlib")  # its own imports all of HeartMuLa, with other pins than ours
        package.__path__ = [str(Path(checkout) / "src" / "heartlib")]
        sys.modules["heartlib"] = package
        from heartlib.heartcodec.modeling_heartcodec import HeartCodec  # pyright: ignore[reportMissingImports]

        model = HeartCodec.from_encoder_decoder_pretrained(
            settings["decoder"], settings["weights"], dtype=torch.float32
        )
        return model.eval().to(device).tokenize
    from audioprep.encoders.registry import load_encoder
    from audioprep.stages.encode import encode_samples

    encoder = load_encoder("heartcodec", settings | {"device": device})
    return lambda sound, rate: torch.from_numpy(encode_samples(encoder, sound.numpy()))


encoders.ENCODERS["heartcodec"] = (make_heartcodec, heartlib_loop)


def main(arguments: list[str]) -> int:
    if "--tiny" not in arguments and "AUDIOPREP_HEARTLIB" not in os.environ:
        sys.exit("set AUDIOPREP_HEARTLIB to a checkout of heartlib, or give --tiny")
    return encoders.main(["--encoders", "heartcodec", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
