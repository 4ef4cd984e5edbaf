"""Finds weights (a file, a folder, the Hub) and loads them without ever running code from them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage.files import listing
from audioprep.storage.kept import kept_file, kept_folder
from audioprep.storage.listing import look_up
from audioprep.storage.places import Place, is_url, to_url

if TYPE_CHECKING:
    from torch import Tensor, nn

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_SHOWN = 4  # keys that a message names


def local_files(
    weights: str, names: Sequence[str], *, encoder: str, subfolder: str = "", optional: Sequence[str] = ()
) -> Path:
    """The folder that holds these files; they are fetched where `weights` is a URL or a repository of the Hub.

    Args:
        weights: a folder or a file (which is given back), each local or a URL; or `org/name[@revision]`.
        names: files that must be there; `a|b` means one of both, the first where there is a choice.
        encoder: name for messages.
        subfolder: of the folder or repository.
        optional: files that may be missing.

    Raises:
        UsageError: they are not there, the repository is gated, or it cannot be reached; says what to do.
    """
    if file := named_file(weights):
        return file
    if is_url(weights):
        return _from_store(to_url(weights.rstrip("/")) / subfolder, names, optional, encoder)
    path = Path(weights).expanduser()
    if path.is_dir():
        folder = path / subfolder
        _require(names, lambda name: (folder / name).is_file(), folder, encoder)
        return folder
    match = _REPOSITORY.fullmatch(weights)
    if match is None:
        raise UsageError(
            f"{weights}: no such file or folder; give weights for {encoder} that exist, or a Hub repository"
        )
    return _from_hub(match["repo"], match["revision"], subfolder, names, optional, encoder)


def is_cached(repository: str) -> bool:
    """Whether a file of a Hub repository `org/name[@revision]` is on this machine."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ModuleNotFoundError:
        return False
    try:
        return any(found.repo_id == repository.partition("@")[0] for found in scan_cache_dir().repos)
    except CacheNotFound:
        return False


def first_of(folder: Path, names: str) -> Path:
    """The first file of `a|b` that the folder has, or where `a` would be."""
    paths = [folder / name for name in names.split("|")]
    return next((path for path in paths if path.is_file()), paths[0])


def named_file(weights: str) -> Path | None:
    """The file that `weights` is the path or the URL of; None for a folder, or a repository.

    Raises:
        UsageError: a store has nothing there, or does not give it.
    """
    if is_url(weights):
        return kept_file(to_url(weights)) if look_up(weights) else None
    path = Path(weights).expanduser()
    return path if path.is_file() else None


def _from_store(folder: Place, names: Sequence[str], optional: Sequence[str], encoder: str) -> Path:
    assert isinstance(folder, UPath)
    there = listing(folder)
    wanted = _require(names, there.__contains__, folder, encoder)
    return kept_folder(folder, there, [*wanted, *(name for name in optional if name in there)])


def _require(names: Sequence[str], has: Callable[[str], bool], folder: Place, encoder: str) -> list[str]:
    """Of each `a|b` the first that the folder has."""
    found = [next(filter(has, name.split("|")), None) for name in names]
    if None in found:
        name = names[found.index(None)].replace("|", " or ")
        raise UsageError(f"{folder}: has no {name}, so it holds no weights for {encoder}")
    return [name for name in found if name]


def _from_hub(
    repo: str, revision: str | None, subfolder: str, names: Sequence[str], optional: Sequence[str], encoder: str
) -> Path:
    folder = Path()
    for name in names:
        folder = _download(repo, revision, subfolder, name.split("|"), encoder)
    for name in optional:
        try:
            _download(repo, revision, subfolder, [name], encoder)
        except UsageError:
            continue
    return folder


def _download(repo: str, revision: str | None, subfolder: str, choices: Sequence[str], encoder: str) -> Path:
    """Downloads the first of `choices` that the repository has; gives its folder in the cache."""
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    error: Exception | None = None
    for name in choices:
        try:
            return Path(hf_hub_download(repo, name, subfolder=subfolder or None, revision=revision)).parent
        except hub.LocalEntryNotFoundError as found:  # before its parent, EntryNotFoundError
            error = found
        except hub.EntryNotFoundError as found:
            error = found
        except hub.GatedRepoError as found:
            raise UsageError(
                f"{encoder}: the repository {repo} is gated. Accept its terms at https://huggingface.co/{repo}, log in "
                "with `hf auth login`, and run the same command again."
            ) from found
        except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as found:
            raise UsageError(
                f"{encoder}: there is no repository {repo}{f'@{revision}' if revision else ''} on the Hub, or you may "
                "not see it: check the name, or log in with `hf auth login`."
            ) from found
        except (hub.HfHubHTTPError, OSError) as found:
            raise UsageError(f"{encoder}: {repo} cannot be downloaded: {found}. Run the same command again.") from found
        if isinstance(error, hub.LocalEntryNotFoundError):
            break
    if isinstance(error, hub.LocalEntryNotFoundError):
        raise UsageError(
            f"{encoder}: {repo} is not on this machine and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is "
            f"set). Run `hf download {repo}` where there is a network, or give --weights FOLDER."
        ) from error
    raise UsageError(f"{encoder}: {repo} has no {' or '.join(choices)}: give --weights of another one") from error


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_weights(paths: Iterable[Path]) -> str:
    """The fingerprint of weights: of one file its sha256, of several the sha256 of all of theirs.

    Raises:
        UsageError: one of them cannot be read.
    """
    digests: list[str] = []
    for path in paths:
        try:
            status = path.stat()
            digests.append(_sha256(path.resolve(), status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}. Give other weights.") from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def load_tensors(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: of safetensors the tensors by name, of a pickle its object, without running code.

    Raises:
        UsageError: the file is truncated or no checkpoint, or it is a pickle that wants to run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "fetch it again, or give other weights"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
            # Of a newer protocol than torch's own, which is no reason to worry a user.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise UsageError(
                f"{path}: is a pickle that wants to call {named[1]}, and no code from a checkpoint is ever run. Ask "
                "its author for safetensors, or convert it where you trust it."
            ) from error
        raise UsageError(f"{path}: is no checkpoint that can be read safely; {remedy}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, AssertionError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(f"{path}: cannot be read as a checkpoint ({first_line}); {remedy}") from error


def _numpy_numbers() -> list[Any]:
    """What a pickle calls to make a number of numpy's: learning rates and metrics beside the tensors are often such."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    codes = "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # before numpy 2, and since
    return [*((scalar, name) for name in names), np.dtype, *{type(np.dtype(code)) for code in codes}]


def load_strict(model: nn.Module, tensors: dict[str, Tensor], path: Path, *, assign: bool = False) -> None:
    """Puts tensors into a model that needs just these; with `assign` they become its own, for a model without memory.

    Raises:
        UsageError: some are missing, left over, or of another shape.
    """
    wanted = model.state_dict()
    faults = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{key} {list(tensors[key].shape)} instead of {list(wanted[key].shape)}"
            for key in sorted(wanted.keys() & tensors.keys())
            if tensors[key].shape != wanted[key].shape
        ],
    }
    if any(faults.values()):
        said = "; ".join(
            f"{len(keys)} {fault}: {', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''}"
            for fault, keys in faults.items()
            if keys
        )
        raise UsageError(
            f"{path}: its weights do not fit its configuration: {said}. Give weights that belong together."
        )
    model.load_state_dict(tensors, assign=assign)
