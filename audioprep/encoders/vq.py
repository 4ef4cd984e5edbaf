"""A single vector quantizer: its codebook as a file, and the nearest codeword of each frame.

Codebooks of `audioprep fit` are safetensors with one tensor `codebook`, float32 `[N, D]`, and say in their metadata
what they were fitted to. Those of other tools are read too: vector-quantize-pytorch's state dict (`_codebook.embed`),
an `nn.Embedding`, a bare tensor.

Shapes: `F` frames, `D` dimensions, `N` codewords.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioprep.encoders.checkpoints import load_tensors
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Distance = Literal["euclidean", "cosine"]
FORMAT = "audioprep.vq.1"
"""Key of the file's metadata; its value is JSON that says what the codebook was fitted to."""

_NAMES = {"codebook", "codebooks", "codewords", "embed", "embedding", "embeddings", "vq", "quantizer"}


@dataclass(frozen=True, slots=True)
class CodebookFile:
    """What a file says of its codebook.

    Attributes:
        path: of the file.
        tensor: its name in there.
        size: `N`.
        dim: `D`.
        facts: what `audioprep fit` wrote beside it; empty for a file of another tool.
    """

    path: Path
    tensor: str
    size: int
    dim: int
    facts: dict[str, Any]


def describe_codebook(path: Path) -> CodebookFile:
    """Finds the codebook in a file; torch is imported only where the file is a pickle.

    Raises:
        UsageError: there is no such file, it cannot be read safely, or it holds no codebook, or several.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such codebook; make one with `audioprep fit muq-vq`")
    shapes, facts = _header(path) if path.suffix == ".safetensors" else (_shapes(path), {})
    found = {name: shape for name, shape in shapes.items() if _is_codebook(name, shape)}
    if len(found) != 1:
        said = (
            ", ".join(f"{name or 'a tensor'} {list(shape)}" for name, shape in (found or shapes).items()) or "nothing"
        )
        raise UsageError(
            f"{path}: holds {'several codebooks' if found else 'no codebook'} ({said}). Give a file with one tensor "
            "`codebook` [codewords, dimensions]."
        )
    ((name, shape),) = found.items()
    return CodebookFile(path, name, shape[-2], shape[-1], facts)


def load_codebook(file: CodebookFile) -> Tensor:
    """The codewords, float32 `[N, D]`.

    Raises:
        UsageError: some are not finite.
    """
    codewords = _flat(load_tensors(file.path))[file.tensor].float().reshape(file.size, file.dim)
    if not codewords.isfinite().all():
        raise UsageError(f"{file.path}: some of its codewords are not finite; give another codebook")
    return codewords


def save_codebook(codewords: Tensor, facts: dict[str, Any], path: Path) -> None:
    """Writes codewords `[N, D]`; the same ones and the same facts give the same bytes."""
    from safetensors.torch import save

    # One entry only: safetensors writes several in random order.
    facts_json = json.dumps(facts, sort_keys=True)
    path.write_bytes(save({"codebook": codewords.float().cpu().contiguous()}, {FORMAT: facts_json}))


class VectorQuantizer:
    """Gives each frame the id of its nearest codeword; of equally near ones the lowest.

    Args:
        codewords: float32 `[N, D]`, on the device where frames will be.
        distance: `euclidean`, or `cosine`: the codeword of the most similar direction.
    """

    def __init__(self, codewords: Tensor, distance: Distance) -> None:
        from torch.nn.functional import normalize

        from audioprep.encoders.rvq import half_norms

        self._codewords = normalize(codewords) if distance == "cosine" else codewords.contiguous()
        # Of codewords that are equally long the most similar one has the largest product, whatever the frame's length.
        self._half_norms = half_norms(codewords) if distance == "euclidean" else codewords.new_zeros(len(codewords))

    def encode(self, frames: Tensor) -> Tensor:
        """Ids int64 `[F]` of frames float32 `[F, D]`."""
        from audioprep.encoders.rvq import nearest

        return nearest(frames, self._codewords, self._half_norms)


def _header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """The shapes of a safetensors file, and the facts in its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, json.loads((file.metadata() or {}).get(FORMAT, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a codebook ({error}); fetch it again, or give another") from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _flat(load_tensors(path)).items()}


def _flat(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors in nested dictionaries, with their names joined by dots."""
    import torch

    if isinstance(value, torch.Tensor):
        return {name: value}
    if not isinstance(value, dict):
        return {}
    found: dict[str, Tensor] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


def _is_codebook(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor's name says that it is a codebook, and its shape is `[N, D]` or `[1, N, D]`."""
    is_matrix = len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)
    return is_matrix and (not name or name.removesuffix(".weight").rpartition(".")[2].lstrip("_") in _NAMES)
