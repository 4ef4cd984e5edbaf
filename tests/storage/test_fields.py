from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError
from upath import UPath

from audioprep.commands.base import CommandSettings
from audioprep.storage.fields import PlaceField


class Settings(CommandSettings):
    out: PlaceField = Path("here")
    local: Path | None = None
    root: list[Path] = Field(default=[])


def test_a_place_is_a_path_or_a_url() -> None:
    assert Settings(out="~/set").out == Path.home() / "set"  # pyright: ignore[reportArgumentType]
    out = Settings.model_validate({"out": "memory://bucket/set"}).out
    assert isinstance(out, UPath) and str(out) == "memory://bucket/set"
    assert Settings.model_validate({"out": out}).out == out
    assert Settings.model_json_schema()["properties"]["out"]["type"] == "string"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"out": 3}, "should be a path or a URL"),
        ({"out": "nowhere://x"}, "no store is known for nowhere://"),
        ({"local": "s3://bucket/a"}, "s3://bucket/a: only a local path is taken here: copy it first"),
        ({"local": Path("s3://bucket/a")}, "s3://bucket/a: only a local path"),
        ({"root": ["~/music", "https://host/a"]}, "https://host/a: only a local path"),
    ],
)
def test_what_is_no_such_place_is_told(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate(given)


def test_home_and_odd_names_of_local_paths() -> None:
    assert Settings(local=Path("~/a")).local == Path.home() / "a"
    assert Settings(root=[Path("~/a"), Path("a: b/c")]).root == [Path.home() / "a", Path("a: b/c")]
