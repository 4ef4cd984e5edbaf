"""`audioprep fit mel-rvq`: a codebook fitted to the user's own audio."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from audioprep.commands.base import Console, CorpusSettings, Counter, Summary
from audioprep.corpus.content import local_file
from audioprep.errors import InputError, UsageError
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing_file

logger = logging.getLogger(__name__)


class Settings(CorpusSettings):
    """Settings of `audioprep fit mel-rvq`."""

    out: PlaceField = Field(description="The weights file to write (.safetensors), or its URL.")
    num_codebooks: PositiveInt = Field(8, description="Codebooks of the residual quantizer.")
    codebook_size: PositiveInt = Field(1024, description="Codewords of each codebook.")
    max_frames: PositiveInt = Field(200_000, description="Frames (25 a second) in the random sample fitted to.")
    seed: int = Field(0, ge=0, description="Of the sample and of the k-means.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    overwrite: bool = Field(False, description="Replace an existing file.")


def run(settings: Settings, console: Console) -> Summary:
    """Fits a codebook and writes it; does nothing where the file is there.

    Raises:
        UsageError: no usable audio, or too little of it for so many codewords.
    """
    if settings.out.exists() and not settings.overwrite:
        return {"weights": str(settings.out), "already_there": True}
    from audioprep.encoders.mel_rvq_fit import fit_mel_rvq

    failed: list[InputError] = []
    with console.counter("Reading audio") as reading, console.counter("Fitting codebooks") as fitting:
        weights = fit_mel_rvq(
            _samples(settings, failed, reading),
            num_codebooks=settings.num_codebooks,
            codebook_size=settings.codebook_size,
            max_frames=settings.max_frames,
            seed=settings.seed,
            device=settings.device,
            progress=fitting,
        )
    with publishing_file(settings.out) as path:
        weights.save(path)
    return {"weights": str(settings.out), "failed": len(failed)} | asdict(weights.report)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    with console.counter("Scanning") as scanning:
        inputs = sum(1 for _ in settings.entries(lambda found: scanning(found, None)))
    return {"weights": str(settings.out), "inputs": inputs, "already_there": settings.out.exists()}


def _samples(settings: Settings, failed: list[InputError], reading: Counter) -> Iterator[NDArray[np.float32]]:
    """The corpus as blocks of samples `[1, T]`; a broken file is named in the log and left out."""
    from audioprep.audio import open_audio
    from audioprep.encoders.mel_grid import SAMPLE_RATE

    count = 0
    for entry in settings.entries():
        try:
            with (
                local_file(entry.uri) as path,
                open_audio(path, sample_rate=SAMPLE_RATE, channels=1) as stream,
            ):
                yield from stream
        except InputError as error:
            failed.append(error)
            logger.warning("left out: %s", error)
        count += 1
        reading(count, None)
    if count == len(failed):
        what = "no audio that can be decoded" if count else "no audio files"
        raise UsageError(f"{', '.join(settings.source)}: holds {what}. See `audioprep fit mel-rvq --help`.")
