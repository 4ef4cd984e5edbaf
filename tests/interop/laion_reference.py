"""What laion-clap itself gives: run by `test_laion_clap.py` in an environment that has it.

Usage: python laion_reference.py FOLDER NAME, NAME such as HTSAT-tiny or HTSAT-tiny-fused. FOLDER has `tokenizer/`,
`clips.npz` and `texts.json`; to it are added NAME.pt, in the layout of LAION's training script, and NAME.npz with the
embeddings that laion-clap's own functions give after loading that file.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers


def import_laion_clap(tokenizer: Path) -> ModuleType:
    """Imports laion-clap with what it would download replaced: tokenizers by a local one, RoBERTa by a small one."""
    local = transformers.RobertaTokenizer.from_pretrained(str(tokenizer))
    config = transformers.RobertaConfig(
        vocab_size=len(local), num_hidden_layers=2, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )
    model = transformers.RobertaModel
    for name in ("BertTokenizer", "BartTokenizer", "RobertaTokenizer"):
        setattr(getattr(transformers, name), "from_pretrained", staticmethod(lambda *_, **__: local))  # noqa: B010
    setattr(model, "from_pretrained", staticmethod(lambda *_, **__: model(config)))  # noqa: B010
    import laion_clap

    return laion_clap


def randomise(model: Any) -> None:
    """Weights far enough from zero for embeddings to differ, and statistics as log-mel spectrograms have them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
        statistics = model.audio_branch.bn0
        statistics.running_mean += 3 * torch.randn_like(statistics.running_mean) - 30
        statistics.running_var *= 300


def save(model: Any, path: Path) -> None:
    """As LAION's training script saves, under the transformers of that time, which kept `position_ids`."""
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    optimizer = {"param_groups": [{"lr": np.float64(1e-4)}]}
    torch.save({"epoch": 15, "name": "random", "state_dict": state, "optimizer": optimizer}, path)


def main(folder: Path, name: str) -> None:
    laion_clap: Any = import_laion_clap(folder / "tokenizer")
    torch.manual_seed(0)
    fused = name.endswith("-fused")
    module = laion_clap.CLAP_Module(enable_fusion=fused, amodel=name.removesuffix("-fused"), device="cpu")
    randomise(module.model)
    save(module.model, folder / f"{name}.pt")
    module.load_ckpt(str(folder / f"{name}.pt"), verbose=False)
    with np.load(folder / "clips.npz") as clips:
        audio = [module.get_audio_embedding_from_data([clips[key]], use_tensor=False)[0] for key in sorted(clips)]
    text = module.get_text_embedding(json.loads((folder / "texts.json").read_text()))
    np.savez(folder / f"{name}.npz", audio=np.stack(audio), text=text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
