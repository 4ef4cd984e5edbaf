"""The two files that SimpleTuner is started with, and how it puts rows into buckets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

LayoutName = Literal["folder", "inline", "jsonl"]

BACKEND, CONFIG, DETAILS = "multidatabackend.json", "config.json", "details.json"
DATA = "data/train-00000-of-00001.parquet"
# Not `metadata.jsonl`, for which `datasets` would take the folder for one of audio files.
INDEX = "songs.jsonl"

DEFAULT_INTERVAL = 3.0
_INTERVALS = (DEFAULT_INTERVAL, 6.0, 12.0, 30.0, 60.0, 120.0, 240.0)


def bucket_of(seconds: float | None, interval: float) -> float:
    """Where SimpleTuner puts a row: only rows of one bucket come into one batch.

    Args:
        seconds: how long it lasts; None where the row does not say, which is a bucket of its own (-1).
        interval: `audio.duration_interval`. What is shorter has a bucket for each duration, to a hundredth of a second.
    """
    if seconds is None:
        return -1.0
    return math.floor(seconds / interval) * interval or round(seconds, 2)


def small_buckets(seconds: Iterable[float | None], interval: float, batch_size: int) -> dict[float, int]:
    """The rows of each bucket that has too few of them for a batch, at which SimpleTuner does not start."""
    rows = Counter(bucket_of(value, interval) for value in seconds)
    return {bucket: count for bucket, count in sorted(rows.items()) if count < batch_size}


def choose_interval(seconds: list[float], batch_size: int) -> float | None:
    """The finest interval at which every bucket has a batch; None where only one bucket for all will do."""
    return next((interval for interval in _INTERVALS if not small_buckets(seconds, interval, batch_size)), None)


def backend(layout: LayoutName, location: str, interval: float | None) -> dict[str, Any]:
    """An entry of `multidatabackend.json`, without its id.

    Args:
        layout: of the folder.
        location: where the trainer finds the folder; of `inline` also the name of a repository of the Hub.
        interval: of the buckets; None for one bucket.
    """
    entry: dict[str, Any] = {"dataset_type": "audio"}
    if interval is not None:
        entry["audio"] = {"bucket_strategy": "duration", "duration_interval": interval}
    if layout == "jsonl":
        columns = {"filename_column": "filename", "caption_column": "tags", "lyrics_column": "lyrics"}
        audio = {f"audio_{name}_column": name for name in ("sample_rate", "num_samples", "channels", "duration")}
        if interval is None:
            audio.pop("audio_duration_column")
        index = {"path": f"{location}/{INDEX}", "identifier_includes_extension": True}
        return entry | {
            "type": "local",
            "instance_data_dir": location,
            "metadata_backend": "parquet",
            "caption_strategy": "parquet",
            "parquet": index | columns | audio,
        }
    entry |= {
        "type": "huggingface",
        "dataset_name": location,
        "metadata_backend": "huggingface",
        "caption_strategy": "huggingface",
        "split": "train",
    }
    # Paths of token files are relative to it.
    return entry | ({"instance_data_dir": location} if layout == "folder" else {})


def trainer_config(location: str, batch_size: int) -> dict[str, Any]:
    """The trainer's `config.json`: all that it needs to start, with values to begin from.

    Args:
        location: where the trainer finds `multidatabackend.json`.
        batch_size: rows of a step on one GPU.
    """
    return {
        "model_family": "heartmula",
        "model_type": "lora",
        "model_flavour": "3b",
        "pretrained_model_name_or_path": "HeartMuLa/HeartMuLa-oss-3B",
        "data_backend_config": f"{location}/{BACKEND}",
        "output_dir": "output/heartmula",
        "resolution": 0,
        "train_batch_size": batch_size,
        "mixed_precision": "bf16",
        "optimizer": "adamw_bf16",
        "learning_rate": 5e-5,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 50,
        "lora_rank": 64,
        "gradient_checkpointing": True,
        "max_train_steps": 1000,
        "num_train_epochs": 0,
        "checkpoint_step_interval": 250,
        "report_to": "none",
        "seed": 42,
    }
