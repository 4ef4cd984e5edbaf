"""Shuffled, padded batches a second: our loader beside those of litdata, mosaicml-streaming, webdataset and datasets.

    python bench/loader.py [--samples 6000] [--repeats 5] [--json]

All read the same token arrays `[100…1200, 9]` of 10-bit codes, each in its own format in a temporary folder, and give
int64 batches of 32 with a mask, through the same collate function. The runs take turns; a run is one epoch, start and
end of its threads and worker processes included. Exit code 1 if our Parquet loader is slower than the fastest peer,
without workers or with two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from audioprep.shards.collate import pad_frames, to_tensors
from audioprep.shards.columns import array_type, to_table
from audioprep.shards.dataset import SCHEMA_VERSION
from audioprep.shards.loader import ShardLoader
from audioprep.shards.writers import SUFFIX, WRITERS, Format

BATCH, CODEBOOKS, SHARDS = 32, 9, 4
OURS = ("audioprep parquet", "audioprep tar")
Tokens = NDArray[np.uint16]
Opener = Callable[[int, int], Iterable[Any]]  # (workers, epoch) -> batches


def make_tokens(samples: int) -> list[Tokens]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 1024, (frames, CODEBOOKS), dtype=np.uint16) for frames in rng.integers(100, 1201, samples)]


def collate(items: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for everybody; ours is made of the same two steps."""
    rows = [np.asarray(item["audio_tokens"]) for item in items]
    return to_tensors(pad_frames(rows, dtype=np.int64), np.array([len(row) for row in rows]))


def shares(tokens: list[Tokens]) -> list[range]:
    """The samples of each of the files, for the formats that have no size of their own."""
    return [range(len(tokens))[i * len(tokens) // SHARDS : (i + 1) * len(tokens) // SHARDS] for i in range(SHARDS)]


def identity(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def open_ours(root: Path, tokens: list[Tokens], storage: Format) -> Opener:
    schema = pa.schema(
        {"id": pa.string(), "num_frames": pa.int32(), "audio_tokens": array_type(pa.uint16(), CODEBOOKS)}
    )
    (root / "data").mkdir(parents=True)
    (root / "index").mkdir()
    shards = []
    for number, share in enumerate(shares(tokens)):
        path = root / f"data/train-{number:05d}{SUFFIX[storage]}"
        writer = WRITERS[storage](path, root / f"index/{path.stem}.parquet", schema)
        rows = [{"id": identity(i), "num_frames": len(tokens[i]), "audio_tokens": tokens[i]} for i in share]
        writer.write(to_table(rows, schema))
        writer.close()
        shards.append({"path": f"data/{path.name}", "split": "train", "rows": len(share), "sha256": ""})
    description = {
        "format": "audioprep",
        "schema_version": SCHEMA_VERSION,
        "storage": storage,
        "columns": {field.name: str(field.type) for field in schema},
        "shards": shards,
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")

    def batches(workers: int, epoch: int) -> Iterable[Any]:
        loader = ShardLoader(root, batch_size=BATCH, num_workers=workers, rank=0, world_size=1)
        loader.set_epoch(epoch)
        return ((batch["audio_tokens"], batch["audio_tokens_mask"], batch["lengths"]) for batch in loader)

    return batches


def open_webdataset(root: Path, tokens: list[Tokens]) -> Opener:
    from webdataset.compat import WebDataset, WebLoader
    from webdataset.writer import TarWriter

    root.mkdir()
    for number, share in enumerate(shares(tokens)):
        with TarWriter(str(root / f"train-{number:05d}.tar")) as writer:
            for i in share:
                writer.write({"__key__": identity(i), "json": {"id": identity(i)}, "audio_tokens.npy": tokens[i]})
    urls = [str(path) for path in sorted(root.iterdir())]

    def batches(workers: int, epoch: int) -> Iterable[Any]:
        dataset = (
            WebDataset(urls, shardshuffle=len(urls), seed=epoch)
            .shuffle(1000)
            .decode()
            .map(_from_webdataset)
            .batched(BATCH, collation_fn=collate)
        )
        return WebLoader(dataset, batch_size=None, num_workers=workers)

    return batches


def _from_webdataset(item: dict[str, Any]) -> dict[str, Any]:
    return {"id": item["json"]["id"], "audio_tokens": item["audio_tokens.npy"]}


def open_litdata(root: Path, tokens: list[Tokens]) -> Opener:
    import litdata
    from litdata.streaming.cache import Cache

    # What `litdata.optimize` writes with, without its processes.
    cache = Cache(str(root), chunk_bytes="64MB")
    for number, array in enumerate(tokens):
        cache[number] = {"id": identity(number), "audio_tokens": array}
    cache.done()
    cache.merge()

    def batches(workers: int, epoch: int) -> Iterable[Any]:
        dataset = litdata.StreamingDataset(str(root), shuffle=True, seed=epoch)
        return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)

    return batches


def open_streaming(root: Path, tokens: list[Tokens]) -> Opener:
    import streaming
    from streaming.base.util import clean_stale_shared_memory

    with streaming.MDSWriter(out=str(root), columns={"id": "str", "audio_tokens": "ndarray:uint16"}) as writer:
        for number, array in enumerate(tokens):
            writer.write({"id": identity(number), "audio_tokens": array})

    def batches(workers: int, epoch: int) -> Iterable[Any]:
        clean_stale_shared_memory()
        dataset = streaming.StreamingDataset(local=str(root), shuffle=True, shuffle_seed=epoch, batch_size=BATCH)
        return torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)

    return batches


def open_datasets(root: Path, tokens: list[Tokens]) -> Opener:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"id": datasets.Value("string"), "audio_tokens": datasets.Array2D((None, CODEBOOKS), "uint16")}  # pyright: ignore[reportArgumentType]
    )

    def rows() -> Iterator[dict[str, Any]]:
        for number, array in enumerate(tokens):
            yield {"id": identity(number), "audio_tokens": array}

    dataset = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(root))
    assert isinstance(dataset, datasets.Dataset)
    shown = dataset.with_format("numpy")

    def batches(workers: int, epoch: int) -> Iterable[Any]:
        generator = torch.Generator().manual_seed(epoch)
        return torch.utils.data.DataLoader(
            shown,  # pyright: ignore[reportArgumentType]
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=collate,
            generator=generator,
        )

    return batches


OPENERS: dict[str, Callable[[Path, list[Tokens]], Opener]] = {
    "audioprep parquet": partial(open_ours, storage="parquet"),
    "audioprep tar": partial(open_ours, storage="webdataset"),
    "litdata": open_litdata,
    "mosaicml-streaming": open_streaming,
    "webdataset": open_webdataset,
    "datasets": open_datasets,
}


def samples_a_second(batches: Callable[[], Iterable[Any]], samples: int) -> float:
    """Runs one epoch, as a trainer does: a batch lives until the next one is there."""
    start = time.perf_counter()
    seen = 0
    for _, mask, _ in batches():
        seen += len(mask)
    elapsed = time.perf_counter() - start
    if seen != samples:
        raise SystemExit(f"an epoch had {seen} of {samples} samples")
    return samples / elapsed


def measure(openers: dict[str, Opener], samples: int, repeats: int, workers: int) -> dict[str, float]:
    """Medians of runs that take turns, so that what else the machine does falls on all of them alike."""
    runs: dict[str, list[float]] = {name: [] for name in openers}
    for epoch in range(repeats + 1):
        for name, batches in openers.items():
            speed = samples_a_second(partial(batches, workers, epoch), samples)
            if epoch:  # the first turn fills caches
                runs[name].append(speed)
    return {name: statistics.median(speeds) for name, speeds in runs.items()}


def report(speeds: dict[int, dict[str, float]], sizes: dict[str, int], codes: int) -> str:
    heads = "".join(f"{f'{workers} workers':>12}{'ours is':>9}" for workers in speeds)
    lines = [f"{'samples a second':20}{heads}{'bits a code':>13}"]
    for name, size in sizes.items():
        cells = "".join(f"{row[name]:12,.0f}{row['audioprep parquet'] / row[name]:8.2f}x" for row in speeds.values())
        lines.append(f"{name:20}{cells}{size * 8 / codes:13.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--peers", nargs="+", choices=[*OPENERS][len(OURS) :], default=[*OPENERS][len(OURS) :])
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tokens = make_tokens(arguments.samples)
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: Path(folder) / name.replace(" ", "-") for name in (*OURS, *arguments.peers)}
        openers = {name: OPENERS[name](root, tokens) for name, root in roots.items()}
        sizes = {name: sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) for name, root in roots.items()}
        speeds = {workers: measure(openers, len(tokens), arguments.repeats, workers) for workers in arguments.workers}
    ratios = {
        workers: row["audioprep parquet"] / max(row[name] for name in arguments.peers)
        for workers, row in speeds.items()
    }
    if arguments.json:
        print(json.dumps({"samples_a_second": speeds, "bytes": sizes, "ours_to_fastest_peer": ratios}))
    else:
        print(report(speeds, sizes, sum(map(len, tokens)) * CODEBOOKS))
    return int(min(ratios.values()) < 1)


if __name__ == "__main__":
    sys.exit(main())
