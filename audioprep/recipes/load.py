"""Reads a recipe: YAML, variables, `--set`; mistakes are reported with file, line and the nearest right name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from audioprep.errors import UsageError, nearest
from audioprep.recipes.model import COMMANDS, Recipe, recipe_model
from audioprep.samples import sample_folder

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_BUILT_IN = {"AUDIOPREP_SAMPLES": lambda: str(sample_folder())}


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: the YAML file. In its texts, `${NAME}` and `${NAME:-default}` stand for environment variables;
            `${AUDIOPREP_SAMPLES}` is the folder of the bundled samples.
        settings: `STAGE.KEY=VALUE` each, the value as YAML; they replace what the file says.

    Raises:
        UsageError: with the file, the line, and where possible the nearest right name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    if not isinstance(data, dict) or not isinstance(data.get("stages"), list):
        raise UsageError(f"{path}:1: a recipe is a mapping with a list of `stages`; see pipelines/demo.yaml")
    data = _substitute(data, path, root)
    for setting in settings:
        _set(data["stages"], setting)
    try:
        recipe = recipe_model().model_validate(data)
    except ValidationError as error:
        raise UsageError("\n".join(_explain(path, root, data, mistake) for mistake in error.errors())) from error
    names = [stage.name for stage in recipe.stages]
    for number, name in enumerate(names):
        if name in names[:number]:
            line = _line(_find(root, ["stages", number, "name"]))
            raise UsageError(f"{path}:{line}: a second stage is called {name}; give it a `name` of its own")
    return recipe


def _substitute(value: Any, path: Path, node: yaml.Node | None) -> Any:
    """Replaces variables in all texts of a value; `node` is the same value with its lines."""
    if isinstance(value, dict):
        children = {_scalar(key): child for key, child in _pairs(node)}
        return {key: _substitute(inner, path, children.get(str(key), node)) for key, inner in value.items()}
    if isinstance(value, list):
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node] * len(value)
        return [_substitute(inner, path, child) for inner, child in zip(value, nodes, strict=False)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in _BUILT_IN:
            return _BUILT_IN[name]()
        found = os.environ.get(name, default)
        if found is None:
            raise UsageError(
                f"{path}:{_line(node)}: the environment variable {name} is not set. Set it, or write "
                f"${{{name}:-DEFAULT}}."
            )
        return found

    return _VARIABLE.sub(replace, value)


def _set(stages: list[Any], setting: str) -> None:
    name, dot, rest = setting.partition(".")
    key, equals, value = rest.partition("=")
    if not (dot and equals and key):
        raise UsageError(f"--set {setting}: write it like --set tokenize.workers=2")
    named = {str(stage.get("name", stage.get("stage"))): stage for stage in stages if isinstance(stage, dict)}
    if name not in named:
        raise UsageError(f"--set {setting}: the recipe has no stage {name}.{_nearest(name, list(named))}")
    target = named[name]
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise UsageError(f"--set {setting}: {parent} holds no settings of its own")
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {setting}: the value is not valid YAML") from error


def _explain(path: Path, root: yaml.Node, data: dict[str, Any], mistake: Any) -> str:
    """One line for one mistake that pydantic has found."""
    # In the place of a stage pydantic names its type too, as in ('stages', 0, 'tokenize', 'codec').
    location = [part for position, part in enumerate(mistake["loc"]) if position != 2 or mistake["loc"][0] != "stages"]
    line = _line(_find(root, location))
    if mistake["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = mistake["ctx"].get("tag")
        said = f"no stage is called {given}." if given else "a stage needs `stage: NAME`."
        return f"{path}:{line}: {said}{_nearest(str(given), list(COMMANDS))}"
    name = ".".join(str(part) for part in location)
    if mistake["type"] == "extra_forbidden":
        return f"{path}:{line}: {name}: no such setting.{_nearest(str(location[-1]), _known(data, location))}"
    return f"{path}:{line}: {name}: {mistake['msg']}"


def _known(data: dict[str, Any], location: list[Any]) -> list[str]:
    model: type[BaseModel] = Recipe
    if len(location) > 2:
        model = COMMANDS[data["stages"][location[1]]["stage"]].Settings
    return list(model.model_fields)


def _nearest(name: str, known: list[str]) -> str:
    return nearest(name, known) or f" There are: {', '.join(sorted(known))}."


def _find(node: yaml.Node, location: list[Any]) -> yaml.Node:
    """The node at a location, or the nearest one above it that is in the file."""
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            children = {_scalar(key): (key, child) for key, child in _pairs(node)}
            if str(part) not in children:
                return node
            key, child = children[str(part)]
            node = child if isinstance(child, yaml.CollectionNode) else key
    return node


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _scalar(node: yaml.Node) -> str:
    return str(node.value)


def _line(node: yaml.Node | None) -> int:
    return node.start_mark.line + 1 if node and node.start_mark else 1
