"""Files to a store and back, for tests."""

from pathlib import Path
from typing import Any

from upath import UPath


def put(path: Path, url: str) -> str:
    """Sends a file, or all below a folder, to be at `url`."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            place = UPath(f"{url}/{file.relative_to(path).as_posix()}".removesuffix("/."), use_listings_cache=False)
            place.fs.put_file(str(file), place.path)
    return url


def files_at(url: str) -> dict[str, bytes]:
    """All files below a folder, by path."""
    place = UPath(url, use_listings_cache=False)
    fs: Any = place.fs
    return {name.removeprefix(f"{place.path}/"): fs.cat_file(name) for name in fs.find(place.path)}
