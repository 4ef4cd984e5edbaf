"""`audioprep fad`: the Fréchet audio distance between two sets of embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.errors import UsageError
from audioprep.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_limit
from audioprep.metrics.sources import Embeddings, open_source
from audioprep.storage.fields import PlaceField
from audioprep.storage.places import Place

# What says how a set was made, but not what, or moves no value by more than rounding.
_ROUNDING = {
    "encoder", "encoder_settings", "settings", "batch_size", "device", "tf32", "compile", "torch", "transformers",
}  # fmt: skip


class Settings(CommandSettings):
    """Settings of `audioprep fad`."""

    reference: PlaceField = Field(description="A shard set, .npy or .npz: what good audio is.")
    evaluated: PlaceField = Field(description="Likewise: what to compare with it.")
    column: str = Field("clap_embedding", description="Column with the embeddings.")
    split: str | None = Field(None, description="Only this split of the shard sets. Default: all.")
    model: str | None = Field(None, description="Whose statistics to take from a .npz of several.")
    infinity: bool = Field(False, description="Also extrapolate to endlessly many embeddings (FAD-inf).")
    seed: int = Field(0, ge=0, description="Of the subsets for the extrapolation.")


def run(settings: Settings, console: Console) -> Summary:
    """Compares the two sets.

    Raises:
        UsageError: there are no embeddings, too few, or they are of different encoders.
    """
    first, second = _open(settings)
    warnings = _compare_specs(first, second)
    # For the extrapolation, all are needed at once; else one batch at a time is.
    matrix = np.concatenate(list(second.batches())) if settings.infinity and isinstance(second, Embeddings) else None
    reference = _gaussian(settings.reference, first)
    evaluated = _gaussian(settings.evaluated, second) if matrix is None else fit_gaussian([matrix])
    if len(reference.mean) != len(evaluated.mean):
        raise UsageError(
            f"{settings.reference} has {len(reference.mean)} dimensions and {settings.evaluated} "
            f"{len(evaluated.mean)}: they are of different encoders. Embed both with the same."
        )
    warnings += _rank(settings.reference, reference) + _rank(settings.evaluated, evaluated)
    summary: Summary = {
        "fad": frechet_distance(reference, evaluated),
        "n_reference": reference.count,
        "n_evaluated": evaluated.count,
        "dim": len(reference.mean),
    }
    if settings.infinity:
        summary["fad_infinity"] = _limit(settings, reference, matrix)
    return summary | {"warnings": warnings}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would compare."""
    _open(settings)
    return {"reference": str(settings.reference), "evaluated": str(settings.evaluated), "column": settings.column}


def _open(settings: Settings) -> tuple[Embeddings | Gaussian, Embeddings | Gaussian]:
    first, second = (
        open_source(path, settings.column, settings.split, settings.model)
        for path in (settings.reference, settings.evaluated)
    )
    if settings.infinity and isinstance(second, Gaussian):
        raise UsageError(f"{settings.evaluated}: holds statistics only, and --infinity needs the embeddings themselves")
    return first, second


def _gaussian(path: Place, source: Embeddings | Gaussian) -> Gaussian:
    if isinstance(source, Gaussian):
        return source
    try:
        return fit_gaussian(source.batches())
    except ValueError as error:
        raise UsageError(f"{path}: {error}; embed more recordings") from error


def _limit(settings: Settings, reference: Gaussian, embeddings: Any) -> Summary:
    try:
        limit = frechet_limit(reference, embeddings, seed=settings.seed)
    except ValueError as error:
        raise UsageError(
            f"{settings.evaluated}: {error}. Embed more recordings, or keep all of their windows with "
            "--set pooling=all and a smaller hop_seconds."
        ) from error
    return {
        "distance": limit.distance,
        "standard_error": limit.standard_error,
        "r_squared": limit.r_squared,
        "subsets": f"{len(limit.sizes)} of {limit.sizes[0]} to {limit.sizes[-1]}",
    }


def _compare_specs(first: Embeddings | Gaussian, second: Embeddings | Gaussian) -> list[str]:
    """What two encoders of the same weights did differently.

    Raises:
        UsageError: the weights are not the same.
    """
    specs = [source.spec for source in (first, second) if isinstance(source, Embeddings) and source.spec]
    if len(specs) < 2:
        return []
    one, other = (spec | spec["settings"] for spec in specs)
    if one["fingerprint"] != other["fingerprint"]:
        raise UsageError(
            "the two sets were embedded with different weights, so that no distance between them has a meaning; embed "
            "both with the same"
        )
    names = [name for name in one if name not in _ROUNDING and one[name] != other.get(name)]
    changes = ", ".join(f"{name} is {one[name]} and {other.get(name)}" for name in names)
    return [f"the two sets were embedded differently: {changes}"] if names else []


def _rank(path: Place, gaussian: Gaussian) -> list[str]:
    count, dim = gaussian.count, len(gaussian.mean)
    if count is None:
        return [f"{path}: does not say from how many embeddings its statistics are"]
    if count < dim + 1:
        return [
            f"{path}: {count} embeddings in {dim} dimensions have no covariance of full rank, and the distance is far "
            f"too large; take at least {dim + 1}, and better ten times that"
        ]
    return []
