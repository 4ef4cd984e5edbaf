"""Finds the recipes and trainers: in a checkout's top folders, else in those that the wheel carries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audioprep.errors import UsageError, nearest

_PACKAGE = Path(__file__).parent


def _folder(name: str) -> Path:
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "_bundled" / name


def recipe_path(name: str) -> Path:
    """A recipe by its path, or by the name of a bundled one.

    Raises:
        UsageError: neither is there.
    """
    path = Path(name)
    return path if path.is_file() else _find("recipe", name, _folder("pipelines").glob("*.yaml"))


def trainer_path(name: str) -> Path:
    """The file of a bundled trainer, such as `token-lm`.

    Raises:
        UsageError: there is none of this name.
    """
    return _find("trainer", name, _folder("trainers").glob("*.py"))


def _find(kind: str, name: str, files: Iterable[Path]) -> Path:
    bundled = {path.stem.replace("_", "-"): path for path in files}
    if name in bundled:
        return bundled[name]
    hint = nearest(Path(name).stem, bundled)
    raise UsageError(f"no {kind} {name}.{hint} Bundled: {', '.join(sorted(bundled))}.")
