"""Runs SimpleTuner's own code, in an environment of its own; called by test_simpletuner_trainer.

simpletuner_reference.py CASES OUT
    CASES: a JSON list of {"folder", "weights", "settings"}. Each is read from its config.json and multidatabackend.json
    to the loss of a tiny random model, in a process of its own, whose current folder is `weights`.
    OUT: for each {"error"} or {"rows", "losses"}: what the model sees of each row.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"SIMPLETUNER_LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

import torch
from accelerate import Accelerator
from simpletuner.helpers.configuration.loader import load_config
from simpletuner.helpers.data_backend.factory import FactoryRegistry
from simpletuner.helpers.models.heartmula import modeling_heartmula
from simpletuner.helpers.models.heartmula.configuration_heartmula import HeartMuLaConfig
from simpletuner.helpers.models.heartmula.model import HeartMuLa
from simpletuner.helpers.training.state_tracker import StateTracker

# The size of a model that a CPU trains in a second; its text vocabulary is that of the tokenizer in `weights`.
modeling_heartmula._LLAMA_FLAVORS["tiny"] = {
    "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 16, "max_seq_len": 8192, "intermediate_dim": 16,
}  # fmt: skip
TINY = {"backbone_flavor": "tiny", "decoder_flavor": "tiny", "text_vocab_size": 258, "muq_dim": 4}


def train(case: dict[str, Any]) -> dict[str, Any]:
    """One epoch, with the settings of the folder's config.json and these."""
    torch.set_num_threads(1)
    os.chdir(case["weights"])
    os.environ["ENV"] = str(Path(case["folder"], "config.json"))
    args = load_config()
    args.pretrained_model_name_or_path = case["weights"]
    for name, value in case["settings"].items():
        setattr(args, name, value)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=args.gradient_accumulation_steps)
    StateTracker.set_args(args)
    StateTracker.set_accelerator(accelerator)
    StateTracker.set_model_family(args.model_family)
    torch.manual_seed(0)
    model = HeartMuLa(args, accelerator)
    model.model = modeling_heartmula.HeartMuLaModel(HeartMuLaConfig(**TINY))
    StateTracker.set_model(model)
    rows, losses = [], []
    for backend in FactoryRegistry(args, accelerator, None, None, model).configure()["data_backends"].values():
        buckets = backend["metadata_backend"].aspect_ratio_bucket_indices
        batches = sum(len(bucket) // args.train_batch_size for bucket in buckets.values())
        for batch in itertools.islice(backend["train_dataloader"], batches):
            rows += seen(batch)
            batch = model.prepare_batch(batch, {})
            loss = model.loss(batch, model.model_predict(batch))
            loss.backward()
            losses.append(loss.item())
    return {"rows": rows, "losses": losses}


def seen(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """What the model sees of each row: the prompt's ids and the tokens."""
    found = []
    for tokens, prompt, frames in zip(batch["tokens"], batch["prompt_lengths"], batch["audio_lengths"], strict=True):
        found.append({
            "text": tokens[:prompt, -1].tolist(),
            "tokens": tokens[prompt : prompt + frames, :-1].tolist(),
        })  # fmt: skip
    return found


def main(cases: Path, out: Path) -> None:
    found = []
    for number, case in enumerate(json.loads(cases.read_text())):
        here = out.with_suffix(f".{number}")
        child = os.fork()  # SimpleTuner keeps what it is at in global variables, and takes long to import
        if not child:
            try:
                result = train(case)
            except BaseException as error:
                traceback.print_exc()
                result = {"error": f"{type(error).__name__}: {error}"}
            here.write_text(json.dumps(result))
            os._exit(0)
        os.waitpid(child, 0)
        found.append(json.loads(here.read_text()) if here.exists() else {"error": "crashed"})
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    paths = [Path(path).resolve() for path in sys.argv[1:]]
    del sys.argv[1:]  # SimpleTuner looks there, too
    main(*paths)
