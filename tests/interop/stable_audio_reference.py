"""Runs the code of stable-audio-tools and stable-audio-3, in an environment of their own; called by test_stable_audio.

stable_audio_reference.py autoencoder FOLDER          a tiny autoencoder and what it makes of FOLDER/*.wav
stable_audio_reference.py read sat|sa3 CONFIG OUT     a whole epoch of the trainer's own loader
stable_audio_reference.py train sat|sa3 CONFIG OUT    three steps of the trainer's own training
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE, HOP, DIM = 44100, 2048, 64
BATCH = 2

OOBLECK = {"channels": 4, "c_mults": [1, 1, 1, 1, 1], "strides": [2, 4, 4, 8, 8], "use_snake": True}
AUTOENCODER = {
    "encoder": {"type": "oobleck", "config": OOBLECK | {"in_channels": 2, "latent_dim": 2 * DIM}},
    "decoder": {
        "type": "oobleck",
        "config": OOBLECK | {"out_channels": 2, "latent_dim": DIM, "final_tanh": False},
    },
    "bottleneck": {"type": "vae"},
    "latent_dim": DIM,
    "downsampling_ratio": HOP,
    "io_channels": 2,
}
# The size of a diffusion transformer that a CPU trains in a second.
DIT = {
    "io_channels": DIM, "embed_dim": 64, "depth": 2, "num_heads": 2, "cond_token_dim": 32, "project_cond_tokens": False,
    "transformer_type": "continuous_transformer",
}  # fmt: skip
OPTIMIZER = {"diffusion": {"optimizer": {"type": "AdamW", "config": {"lr": 1e-4}}}}


def make_autoencoder(folder: Path) -> None:
    """Writes `vae_model.ckpt`, `vae_config.json`, and `latents.npz`: the posterior's means of the wavs."""
    import soundfile
    from stable_audio_tools.models.factory import create_model_from_config

    config = {"model_type": "autoencoder", "sample_rate": RATE, "audio_channels": 2, "sample_size": 65536}
    config |= {"model": AUTOENCODER}
    torch.manual_seed(0)
    model = create_model_from_config(config).eval()
    torch.save({"state_dict": model.state_dict()}, folder / "vae_model.ckpt")
    (folder / "vae_config.json").write_text(json.dumps(config))
    latents = {}
    with torch.no_grad():
        for path in sorted(folder.glob("*.wav")):
            samples = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T)
            whole = torch.nn.functional.pad(samples, (0, -samples.shape[1] % HOP))
            latents[path.stem] = model.encoder(whole[None])[0, :DIM].numpy()
    np.savez(folder / "latents.npz", **latents)


def load_sat(config: dict[str, Any]) -> Iterable[Any]:
    """The loader that train.py makes."""
    from stable_audio_tools.data.dataset import create_dataloader_from_config

    data_set = json.loads(Path(config["dataset_config"]).read_text()) | config.get("changes", {})
    return create_dataloader_from_config(
        {name: value for name, value in data_set.items() if value is not None},
        batch_size=BATCH, sample_size=HOP * 16, sample_rate=RATE, audio_channels=2, num_workers=1,
    )  # fmt: skip


def load_sa3(config: dict[str, Any]) -> Iterable[Any]:
    """The loader that scripts/train_lora.py makes."""
    from stable_audio_3.data.dataset import LatentDatasetConfig, PreEncodedDataset, collation_fn

    data_set = PreEncodedDataset(
        [LatentDatasetConfig(id="train", path=config["folder"])],
        latent_crop_length=config["crop"],
        random_crop=True,
    )
    return torch.utils.data.DataLoader(
        data_set, batch_size=BATCH, shuffle=True, num_workers=1, drop_last=False, collate_fn=collation_fn
    )


def model_sat() -> Any:
    """A tiny model conditioned on times (text needs weights), in the wrapper that train.py makes."""
    from stable_audio_tools.models.factory import create_model_from_config
    from stable_audio_tools.training.factory import create_training_wrapper_from_config

    times = ["seconds_start", "seconds_total"]
    conditioners = [{"id": name, "type": "number", "config": {"min_val": 0, "max_val": 512}} for name in times]
    config = {
        "model_type": "diffusion_cond",
        "sample_size": HOP * 16,
        "sample_rate": RATE,
        "audio_channels": 2,
        "model": {
            "io_channels": DIM,
            "pretransform": {"type": "autoencoder", "config": AUTOENCODER},
            "conditioning": {"cond_dim": 32, "configs": conditioners},
            "diffusion": {
                "type": "dit",
                "cross_attention_cond_ids": times,
                "global_cond_ids": times,
                "config": DIT | {"global_cond_dim": 64},
            },
        },
        "training": {"pre_encoded": True, "use_ema": False, "optimizer_configs": OPTIMIZER},
    }
    return create_training_wrapper_from_config(config, create_model_from_config(config))


def model_sa3() -> Any:
    """A tiny model in the wrapper that scripts/train_lora.py makes, but for LoRA."""
    from stable_audio_3.models.conditioners import MultiConditioner, NumberConditioner
    from stable_audio_3.models.diffusion import ConditionedDiffusionModelWrapper, DiTWrapper
    from stable_audio_3.training.diffusion import DiffusionCondTrainingWrapper

    model = ConditionedDiffusionModelWrapper(
        DiTWrapper(diffusion_objective="rectified_flow", global_cond_dim=32, **DIT),
        MultiConditioner({"seconds_total": NumberConditioner(32, 0, 384)}),
        io_channels=DIM,
        sample_rate=RATE,
        min_input_length=1,
        diffusion_objective="rectified_flow",
        cross_attn_cond_ids=["seconds_total"],
        global_cond_ids=["seconds_total"],
    )
    return DiffusionCondTrainingWrapper(
        model,
        mask_loss_weight=1.0,
        mask_padding_attention=True,
        silence_extension_scale_seconds=4.0,
        use_ema=False,
        pre_encoded=True,
        timestep_sampler="trunc_logit_normal",
        use_effective_length_for_schedule=True,
        sample_rate=RATE,
        ot_coupling=True,
        optimizer_configs=OPTIMIZER,
    )


def read(loader: Iterable[Any]) -> dict[str, Any]:
    """What comes out of one epoch."""
    items, shapes = [], []
    for latents, metadata in loader:
        shapes.append([*latents.shape, str(latents.dtype)])
        for item, of_item in zip(latents, metadata, strict=True):
            plain = {name: value for name, value in of_item.items() if name != "audio"}
            items.append(plain | {"padding_mask": plain["padding_mask"][0].tolist(), "latents": item.tolist()})
    return {"items": items, "shapes": shapes}


def train(loader: Iterable[Any], module: Any) -> dict[str, Any]:
    """The losses of three steps."""
    import pytorch_lightning as pl

    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.losses.append(float(outputs["loss"]))

    losses = Losses()
    trainer = pl.Trainer(accelerator="cpu", max_steps=3, callbacks=[losses], logger=False, enable_checkpointing=False)
    trainer.fit(module, loader)
    return {"losses": losses.losses}


def main(action: str, *arguments: str) -> None:
    if action == "autoencoder":
        make_autoencoder(Path(arguments[0]))
        return
    which, config, out = arguments
    torch.manual_seed(0)
    loader = {"sat": load_sat, "sa3": load_sa3}[which](json.loads(Path(config).read_text()))
    found = read(loader) if action == "read" else train(loader, {"sat": model_sat, "sa3": model_sa3}[which]())
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
