"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files; folders; CSV, TSV, JSONL or Parquet manifests with a column `path`; saved data sets; or URLs.",
    ),
]
OutPlace = Annotated[str, typer.Option(help="Folder of the shard set, or its URL: s3://bucket/set.")]
ShardSet = Annotated[str, typer.Argument(metavar="OUT", help="Folder of the shard set, or its URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with the summary on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew where something else was made.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:N.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many inputs.")]
Exclude = Annotated[
    str | None, typer.Option(help="File with inputs to leave out (exclude_paths.txt of dedup): a path a line.")
]
Weights = Annotated[
    str | None,
    typer.Option(help="A file or folder, a URL, or a repository of the Hub (org/name[@revision]). Default: its own."),
]
EncoderSetting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the encoder's own.")
]
Format = Annotated[str, typer.Option(help="parquet or webdataset.")]
Splits = Annotated[str, typer.Option(help="Shares, by hash of the content.")]
ShardMb = Annotated[int, typer.Option(min=1, help="Size of a shard before compression, in MiB.")]
Engine = Annotated[str, typer.Option(help="local: processes of this machine; ray: actors on a Ray cluster.")]
Workers = Annotated[int, typer.Option(min=0, help="Their number; 0: one a CPU core, or one a GPU.")]
PartSize = Annotated[int | None, typer.Option(min=1, help="Inputs a part: what a crash loses. Default: up to 512.")]
Check = Annotated[str, typer.Option(help="How to check what is done already: size or sha256.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try the failed inputs again.")]
Isolated = Annotated[
    bool, typer.Option("--isolated", help="Decode each file in its own process: for files of unknown origin.")
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard-of", metavar="K/N", help="Do only the Kth of N slices: --shard-of $SLURM_ARRAY_TASK_ID/8."),
]
Metrics = Annotated[
    Path | None, typer.Option(help="File for figures of the run, in Prometheus' text format, every ten seconds.")
]
TensorBoard = Annotated[
    Path | None, typer.Option("--tensorboard", help="Folder for the same figures, as TensorBoard reads them.")
]


def splits_of(splits: str) -> dict[str, float]:
    """The shares of `--splits`."""
    from audioprep.shards.split import parse_splits

    return parse_splits(splits)
