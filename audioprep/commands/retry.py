"""`audioprep retry`: the failed inputs of a shard set once more, with the settings that it was made with."""

from __future__ import annotations

from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.commands.encoding import RunSettings, run_encoders, run_job
from audioprep.commands.g2p import write_vocabulary
from audioprep.commands.midi import remade_job
from audioprep.engine.run import recorded_stages
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.storage.fields import PlaceField


class Settings(CommandSettings):
    """Settings of `audioprep retry`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    workers: int = Field(0, ge=0, description="Processes; 0: one a CPU core, or one a GPU.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    isolated: bool = Field(False, description="Decode each file in a process of its own.")


def run(settings: Settings, console: Console) -> Summary:
    """Does the failed inputs anew, and puts the shards together with those that are good now.

    Raises:
        UsageError: no finished shard set that was made here, or see `audioprep.engine.run.run`.
        SystemFault: see there.
    """
    dataset = open_dataset(settings.out)
    again = _settings(settings, dataset)
    recorded = recorded_stages(settings.out)
    if any("tokenizer" in stage["origin"] for stage in recorded.values()):
        done = run_job(again, remade_job(again, recorded), again.options("cpu"), console)
    else:
        done = run_encoders(again, [], console)
    for column, stage in recorded.items():
        if "phonemes" in stage["origin"]:
            write_vocabulary(settings.out, column)
    return {"failed_before": dataset.totals["failed"]} | done


def plan(settings: Settings, console: Console) -> Summary:
    """Says how many inputs `run` would try again; writes nothing."""
    dataset = open_dataset(settings.out)
    _settings(settings, dataset)
    return {"out": str(settings.out), "failed_before": dataset.totals["failed"]}


def _settings(settings: Settings, dataset: Dataset) -> RunSettings:
    """The settings of a run without sources, which is one over what is planned already.

    Raises:
        UsageError: the set was not made in this folder, or before audioprep kept how its shards are cut.
    """
    cut = dataset.description.get("cut")
    if cut is None or not recorded_stages(settings.out):
        what = "was not made here" if cut else "does not say how its shards are cut"
        raise UsageError(f"{settings.out}: {what}. Run the command that made it, with --retry-failed.")
    return RunSettings.model_validate(
        {
            "out": settings.out,
            "format": cut["format"],
            "splits": cut["splits"],
            "shard_mb": cut["shard_bytes"] // 2**20,
            "workers": settings.workers,
            "device": settings.device,
            "isolated": settings.isolated,
            "retry_failed": True,
        }
    )
