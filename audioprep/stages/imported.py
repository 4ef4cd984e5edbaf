"""The stage that takes over tokens that another tool has made, from a file beside each recording."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.corpus.entry import Entry, split_embedded, uri_to_path
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import load_tensors
from audioprep.errors import InputError, Reason, UsageError
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.stages.encode import item_schema
from audioprep.stages.read_ahead import DecodedFile, read_ahead
from audioprep.storage.places import is_url
from audioprep.storage.transfer import local_copy

_PLAIN = (".npy", ".npz")
RATE_TOLERANCE = 0.01  # of the frames, and two more: tools round a file's end in different ways


@dataclass(frozen=True, slots=True)
class ImportTokens:
    """Gives `id duration sample_rate channels`, one column of tokens, and `num_frames`.

    Attributes:
        tokens: where a recording's tokens are, with `{stem}` for its name without suffix and `{folder}` for its
            folder: `{folder}/{stem}.npy`.
        spec: of the codec that is said to have made them; its window means nothing.
        column: name of the column, and of the stage.
    """

    tokens: str
    spec: EncoderSpec
    column: str

    @property
    def name(self) -> str:
        return self.column

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1, "encoder": self.spec.to_dict(), "tokens": self.tokens}

    @property
    def origin(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    @property
    def uses_gpu(self) -> bool:
        return False

    @property
    def schema(self) -> pa.Schema:
        return item_schema(self.column, self.spec)

    @staticmethod
    def run(
        stages: Sequence[ImportTokens], entries: Sequence[Entry], resources: Resources
    ) -> Iterator[tuple[str, Outcome]]:
        todo = [(row, entry) for row, entry in enumerate(entries) if not entry.problem]
        # Each file is decoded for its true length; one stage's rate does for all.
        files = read_ahead([entry for _, entry in todo], [stages[0].spec], resources)
        for (row, entry), file in zip(todo, files, strict=True):
            try:
                seconds = _seconds(file, stages[0].spec)
            except InputError as error:
                yield from ((stage.name, Failed(row, error)) for stage in stages)
                continue
            for stage in stages:
                yield stage.name, stage._outcome(row, entry, file, seconds)
            resources.heartbeat(Beat(seconds))

    def _outcome(self, row: int, entry: Entry, file: DecodedFile, seconds: float) -> Outcome:
        path = self._path(entry.uri)
        try:
            if split_embedded(entry.uri):
                raise ValueError("lie beside no recording: it is inside of a container")
            with _local(path) as local:
                tokens = _oriented(_load(local), self.spec)
            _check_rate(len(tokens), seconds, self.spec)
        except (ValueError, UsageError) as error:
            return Failed(row, InputError(Reason.TOKENS, entry.uri, f"its tokens {path}: {error}"))
        facts = file.facts
        return Kept(
            row,
            {
                "id": facts.id,
                "duration": seconds,
                "sample_rate": facts.sample_rate,
                "channels": facts.channels,
                self.column: tokens,
                "num_frames": len(tokens),
            },
        )

    def _path(self, uri: str) -> str:
        folder, name = posixpath.split(uri_to_path(uri))
        return self.tokens.replace("{folder}", folder).replace("{stem}", posixpath.splitext(name)[0])


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """The file itself, or a copy of one of a store.

    Raises:
        ValueError: the store does not give it.
    """
    if not is_url(path):
        yield Path(path)
        return
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(local_copy(path))
        except OSError as error:
            raise ValueError("there is no such file" if isinstance(error, FileNotFoundError) else error) from error
        yield copy


def _seconds(file: DecodedFile, spec: EncoderSpec) -> float:
    for _ in file:
        pass
    return file.facts.samples[0] / spec.sample_rate


def _load(path: Path) -> NDArray[Any]:
    """
    Raises:
        ValueError: there is no such file, or no single array in it.
        UsageError: it is a checkpoint of torch that cannot be read safely.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.suffix not in _PLAIN:
        return _only(load_tensors(path))
    try:
        found = np.load(path, allow_pickle=False)
        found = found if isinstance(found, np.ndarray) else dict(found)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError("are no arrays of numpy, or would have to run code") from error
    return _only(found)


def _only(found: Any) -> NDArray[Any]:
    """The array named `tokens` or `codes`, or the only one."""
    if isinstance(found, dict):
        named = [found[name] for name in ("tokens", "codes") if name in found] or list(found.values())
        if len(named) != 1:
            raise ValueError(f"holds {', '.join(map(str, found)) or 'nothing'}; name the array `tokens`")
        (found,) = named
    if not hasattr(found, "shape"):
        raise ValueError(f"holds {type(found).__name__}, and no array")
    return np.asarray(found)


def _oriented(array: NDArray[Any], spec: EncoderSpec) -> NDArray[np.integer]:
    """The tokens as `[F, K]`, without rows at the end that only mark it.

    Raises:
        ValueError: they are no tokens of this codec.
    """
    codebooks, size = spec.num_codebooks, spec.codebook_size
    assert codebooks and size
    shape = list(array.shape)
    while array.ndim > 2 and 1 in array.shape:  # a batch of one
        array = array.squeeze(array.shape.index(1))
    if array.dtype.kind not in "iu" or array.ndim != 2 or codebooks not in array.shape:
        raise ValueError(f"are {array.dtype} {shape}; integers [frames, {codebooks}] are wanted, or the reverse")
    if array.shape == (codebooks, codebooks):
        raise ValueError(f"are {shape}: which side is time cannot be told")
    if array.shape[1] != codebooks:
        array = array.T
    while len(array) and (array[-1] >= size).all():
        array = array[:-1]
    if not len(array):
        raise ValueError("have no frames")
    if array.min() < 0 or array.max() >= size:
        raise ValueError(f"hold ids from {array.min()} to {array.max()}; a codebook has {size}")
    return array


def _check_rate(frames: int, seconds: float, spec: EncoderSpec) -> None:
    """
    Raises:
        ValueError: so many frames are of another codec, or of another recording.
    """
    expected = seconds * spec.frame_rate
    if abs(frames - expected) > expected * RATE_TOLERANCE + 2:
        raise ValueError(
            f"have {frames} frames for {seconds:.2f} s, {frames / max(seconds, 1e-9):.2f} a second; {spec.name} has "
            f"{spec.frame_rate:g}. They were made by another encoder, or of another recording."
        )
