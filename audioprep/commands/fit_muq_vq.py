"""`audioprep fit muq-vq`: a codebook for the hidden states of MuQ, fitted to the user's own audio."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from audioprep.commands.base import Console, CorpusSettings, Counter, Summary
from audioprep.commands.frame_cache import FrameCache
from audioprep.corpus.entry import Entry
from audioprep.encoders import muq
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.device import resolve_device
from audioprep.encoders.vq import Distance, save_codebook
from audioprep.engine.commit import atomic_path, digest
from audioprep.errors import InputError, Reason, UsageError
from audioprep.stages.base import Resources
from audioprep.stages.batches import Batches, Item
from audioprep.stages.read_ahead import read_ahead
from audioprep.storage.fields import PlaceField
from audioprep.storage.files import remove_folder
from audioprep.storage.places import Place
from audioprep.storage.publish import publishing_file, working_path

if TYPE_CHECKING:
    from audioprep.encoders.vq_fit import EmaKMeans

logger = logging.getLogger(__name__)

_OPTIONS = ("codebook_size", "distance", "steps", "batch_frames", "decay", "dead_code_threshold", "seed")


class Settings(CorpusSettings):
    """Settings of `audioprep fit muq-vq`."""

    out: PlaceField = Field(description="The codebook to write (.safetensors), or its URL.")
    weights: str = Field("OpenMuQ/MuQ-large-msd-iter", description="MuQ: a folder or a repository of the Hub.")
    layer: NonNegativeInt | None = Field(None, description="Which hidden state, from 0. Default: the last.")
    codebook_size: int = Field(129, ge=2, description="Codewords: as many as the model has that reads the tokens.")
    distance: Distance = Field("euclidean", description="euclidean or cosine.")
    steps: PositiveInt = Field(1000, description="Steps of the fit.")
    batch_frames: PositiveInt = Field(8192, description="Frames in each step.")
    decay: float = Field(0.99, gt=0, lt=1, description="Of the moving averages, a step.")
    dead_code_threshold: float = Field(
        0.1, ge=0, lt=1, description="A code with less than this share of the mean code's frames is put elsewhere."
    )
    max_frames: PositiveInt = Field(1_000_000, description="Frames (25 a second) fitted to, of files drawn at random.")
    checkpoint_steps: PositiveInt = Field(100, description="Steps between two checkpoints.")
    cache: Path | None = Field(None, description="Folder for hidden states. Default: OUT.frames.")
    plot: Path | None = Field(None, description="Save a picture of perplexity and usage here (.png).")
    seed: NonNegativeInt = Field(0, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    overwrite: bool = Field(False, description="Replace an existing file.")


def run(settings: Settings, console: Console) -> Summary:
    """Fits a codebook and writes it; does nothing where the file is there. A killed run goes on where it was.

    Raises:
        UsageError: no usable audio, too little of it for so many codewords, or weights that are not of MuQ.
    """
    _check_name(settings.out)
    if settings.out.exists() and not settings.overwrite:
        return {"weights": str(settings.out), "already_there": True}
    spec = muq.describe(_encoder_settings(settings))
    with _open_cache(settings, spec) as (folder, cache):
        entries = _in_random_order(settings, console)
        failed = _fill(cache, entries, spec, settings, console)
        rows = cache.rows(entries, settings.max_frames)
        _check_enough(len(rows), failed, settings)
        fit = _fit(cache.values(), rows, folder, settings, console)
        report, counts = fit.report()
        # What `muq-vq` checks: a codebook is of no use with hidden states of another kind.
        facts = {"encoder": "muq", "weights": spec.fingerprint, "layer": spec.settings["layer"]}
        facts |= {"distance": settings.distance, "codebook_size": settings.codebook_size, "seed": settings.seed}
        with publishing_file(settings.out) as out:
            scratch = out.with_name(out.name + ".scratch")  # the cache may be on another disk
            with atomic_path(out, scratch) as path:
                save_codebook(fit.codewords, facts | asdict(report), path)
            remove_folder(scratch)
        if settings.plot:
            _plot(settings.plot, np.array(fit.history), counts)
        _checkpoint(folder, rows, settings).unlink(missing_ok=True)
    plot = {"plot": str(settings.plot)} if settings.plot else {}
    kept = f"{folder.parent} ({cache.bytes / 2**20:,.0f} MiB, for another fit or to be deleted)"
    return {"weights": str(settings.out), "failed": failed} | asdict(report) | plot | {"hidden_states": kept}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    _check_name(settings.out)
    muq.describe(_encoder_settings(settings))
    inputs = len(_in_random_order(settings, console))
    return {"weights": str(settings.out), "inputs": inputs, "already_there": settings.out.exists()}


def _check_name(out: Place) -> None:
    """
    Raises:
        UsageError: what is written there would not be recognized.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: a codebook is a safetensors file; give --out a name that ends in .safetensors")


def _encoder_settings(settings: Settings) -> muq.Settings:
    return muq.Settings(weights=settings.weights, layer=settings.layer, device=resolve_device(settings.device))


@contextlib.contextmanager
def _open_cache(settings: Settings, spec: EncoderSpec) -> Iterator[tuple[Path, FrameCache]]:
    """The folder of these hidden states, and what is in it; held against a second run.

    Raises:
        UsageError: another run works there, or it cannot be made.
    """
    what = [spec.fingerprint, spec.settings["layer"], spec.window, spec.left_context]
    out = working_path(settings.out)
    folder = (settings.cache or out.with_name(out.name + ".frames")) / digest(what)[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}; choose another --cache") from error
    try:
        with FileLock(folder / "lock", timeout=0):
            assert spec.dim
            yield folder, FrameCache(folder, spec.dim)
            remove_folder(folder / "scratch")
    except Timeout as error:
        raise UsageError(f"{folder}: another run is writing here; wait for it, or choose another --cache") from error


def _in_random_order(settings: Settings, console: Console) -> list[Entry]:
    """The inputs, each once, in an order in which the first so many are a random sample."""
    with console.counter("Scanning") as scanning:
        found = list(settings.entries(lambda count: scanning(count, None)))
    once = [entry for entry in found if entry.ordinal == 0]
    return sorted(once, key=lambda entry: hashlib.sha256(f"{settings.seed} {entry.uri}".encode()).digest())


def _fill(cache: FrameCache, entries: list[Entry], spec: EncoderSpec, settings: Settings, console: Console) -> int:
    """Puts hidden states into the cache until it has enough; gives the number of files that failed."""
    frames = failed = 0
    todo = [entry for entry in entries if cache.count(entry) is None]
    with console.counter("Reading audio") as reading, contextlib.closing(_hidden_states(todo, spec, settings)) as found:
        for done, entry in enumerate(entries, start=1):
            if cache.count(entry) is None:
                try:
                    cache.append(entry, _values(next(found), spec))
                except InputError as error:
                    failed += 1
                    logger.warning("left out: %s", error)
            frames += cache.count(entry) or 0
            reading(done, len(entries))
            if frames >= settings.max_frames:
                break
    return failed


def _hidden_states(entries: Sequence[Entry], spec: EncoderSpec, settings: Settings) -> Generator[Item]:
    """The files' hidden states, in their order; the model is loaded when the first one is asked for."""
    encoder = muq.load(_encoder_settings(settings))
    device = resolve_device(settings.device)
    batches = Batches(encoder, in_flight=1 if device == "cpu" else 2)
    readable = [entry for entry in entries if not entry.problem]
    files = read_ahead(readable, [spec], Resources(device=device))
    for row, entry in enumerate(entries):
        item = batches.begin(row, entry.uri)
        try:
            if entry.problem:
                raise InputError(Reason.UNREADABLE, entry.uri, entry.problem)
            file = next(files)
            for _, window in file:
                batches.add(window, item)
            item.end(file.facts, file.facts.samples[0])
        except InputError as error:
            item.error = error
        yield from batches.finished()
    batches.finish()
    yield from batches.finished()


def _values(item: Item, spec: EncoderSpec) -> NDArray[Any]:
    if item.error:
        raise item.error
    return np.concatenate(item.values)[: spec.num_frames(item.samples)]


def _check_enough(frames: int, failed: int, settings: Settings) -> None:
    """
    Raises:
        UsageError: there are fewer frames than codewords.
    """
    if frames == 0:
        what = "no audio that can be decoded" if failed else "no audio files"
        raise UsageError(f"{', '.join(settings.source)}: holds {what}. See `audioprep fit muq-vq --help`.")
    if frames < settings.codebook_size:
        raise UsageError(
            f"fit muq-vq: {frames} frames of 40 ms cannot fill {settings.codebook_size} codewords; pass more audio, a "
            "smaller --codebook-size or a larger --max-frames"
        )


def _fit(
    values: NDArray[np.float16], rows: NDArray[np.int64], folder: Path, settings: Settings, console: Console
) -> EmaKMeans:
    """Fits, with a checkpoint now and then; goes on from the last one."""
    from safetensors.torch import load_file, save

    from audioprep.encoders.vq_fit import EmaKMeans, FitOptions, Frames

    options = FitOptions(**{name: getattr(settings, name) for name in _OPTIONS})
    fit = EmaKMeans(Frames(values, rows), options, resolve_device(settings.device))
    checkpoint = _checkpoint(folder, rows, settings)
    if checkpoint.exists():
        fit.restore(load_file(checkpoint))
    with console.counter("Fitting") as fitting:
        while fit.step < settings.steps:
            fit.advance()
            _show(fit, fitting)
            if fit.step % settings.checkpoint_steps == 0:
                with atomic_path(checkpoint, folder / "scratch") as path:
                    path.write_bytes(save(fit.state()))
    return fit


def _checkpoint(folder: Path, rows: NDArray[np.int64], settings: Settings) -> Path:
    """Where the state of this fit is: one name for the same frames and the same options."""
    options = {name: getattr(settings, name) for name in _OPTIONS}
    name = digest([options, hashlib.sha256(rows.tobytes()).hexdigest()])[:12]
    return folder / f"fit-{name}.safetensors"


def _show(fit: EmaKMeans, fitting: Counter) -> None:
    perplexity, usage = fit.history[-1]
    fitting(fit.step, fit.options.steps, f"perplexity {perplexity:.1f}, usage {usage:.0%}")


def _plot(path: Path, history: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    """Perplexity and usage by step, and how often each code is used in the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    axes: Any = (above, above.twinx())
    for axis, values, name, color in zip(axes, history.T, ("perplexity", "usage"), ("#4477aa", "#cc6677"), strict=True):
        axis.plot(np.arange(1, len(values) + 1), values, color=color)
        axis.set_ylabel(name, color=color)
        axis.set_ylim(0, 1.05 * max(1, values.max()))
    above.set(xlabel="step", title=f"{len(counts)} codes")
    below.plot(np.sort(counts / counts.sum())[::-1], color="#4477aa")
    below.set(xlabel="code, most used first", ylabel="share of frames", yscale="log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
