"""Types of settings that name a place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage.places import Place, to_place


def _place(value: Any) -> Place:
    if not isinstance(value, str | Path | UPath):
        raise PydanticCustomError("place", "Input should be a path or a URL")
    try:
        return to_place(value)
    except UsageError as error:
        raise PydanticCustomError("place", "{said}", {"said": str(error)}) from error


PlaceField = Annotated[
    Place,
    PlainValidator(_place),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A local path, where `~` is the home folder, or a URL."""


def local_path(path: Path) -> Path:
    """`path`, with `~` as the home folder: for settings that take no URL.

    Raises:
        ValueError: it is a URL.
    """
    # Of `s3://bucket` pathlib makes `s3:/bucket`.
    if url := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", str(path)):
        text = f"{url[1]}://{str(path)[url.end() :]}"
        raise PydanticCustomError("local_path", "{url}: only a local path is taken here: copy it first", {"url": text})
    return path.expanduser()
