"""What there is in a store, file by file: never a whole listing in memory where the store gives pages."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from audioprep.errors import UsageError
from audioprep.storage.faults import login_remedy
from audioprep.storage.places import HTTP, retried, scheme_of, to_url

S3 = ("s3", "s3a")
PAGE = 1000  # what S3 gives at most


class Found(NamedTuple):
    """A file of a store: its URL as the store spells it, and its bytes (0 where the store does not say)."""

    url: str
    size: int


def look_up(url: str) -> Found | None:
    """The file at `url`; None where it is a folder. A page with links, `https://…/`, is a folder.

    Raises:
        UsageError: there is neither, or the store does not let us look; with the remedy.
    """
    place = to_url(url)
    if scheme_of(url) in HTTP:
        return None if urlsplit(url).path.endswith("/") else Found(url, 0)  # missing is what gives no file later
    try:
        info = retried(lambda: place.fs.info(place.path))
    except OSError as error:
        raise no_access(url, error) from error
    return None if info["type"] == "directory" or url.endswith("/") else Found(url, info["size"] or 0)


def walk_files(folder: str) -> Iterator[Found]:
    """Gives all files below a folder of a store, in any order.

    Raises:
        UsageError: the store does not let us look.
    """
    try:
        if scheme_of(folder) in S3:
            bucket, prefix = bucket_and_key(folder.rstrip("/") + "/")
            for page in pages(bucket, prefix, folder):
                for item in page:
                    if not item["Key"].endswith("/"):  # what consoles make to show an empty folder
                        yield Found(f"{scheme_of(folder)}://{bucket}/{item['Key']}", item["Size"])
        else:
            yield from _walk(folder)
    except OSError as error:
        raise no_access(folder, error) from error


def pages(bucket: str, prefix: str, url: str, after: str = "") -> Iterator[list[dict[str, Any]]]:
    """Gives the keys of an S3 bucket that begin with `prefix`, a page at a time, in the order of their bytes.

    Args:
        bucket: its name.
        prefix: of the keys.
        url: any of the store's.
        after: only keys behind this one.

    Raises:
        OSError: the store does not answer, or not to us.
    """
    fs: Any = to_url(url).fs
    wanted = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE} | ({"StartAfter": after} if after else {})
    while True:
        page = retried(lambda: fs.call_s3("list_objects_v2", **wanted))
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


def _walk(folder: str) -> Iterator[Found]:
    for found, is_folder in list_folder(folder):
        if is_folder:
            yield from _walk(found.url)
        else:
            yield found


def list_folder(folder: str) -> Iterator[tuple[Found, bool]]:
    """What is directly in a folder of a store, and whether it is a folder itself."""
    place = to_url(folder)
    scheme = scheme_of(folder)
    path = urljoin(folder, ".") if scheme in HTTP else place.path
    for info in retried(lambda: place.fs.ls(path, detail=True)):
        url = info["name"] if scheme in HTTP else f"{scheme}://{info['name'].lstrip('/')}"
        # Pages of HTTP have links upwards and to themselves; stores list a folder's own marker.
        if len(url.rstrip("/")) > len(folder.rstrip("/")) and (scheme not in HTTP or url.startswith(path)):
            yield Found(url, info["size"] or 0), info["type"] == "directory"


def bucket_and_key(url: str) -> tuple[str, str]:
    """Of a URL of S3."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def join(folder_of: str, relative: str) -> str:
    """The URL of a file that is named relative to the folder of another one."""
    if scheme_of(folder_of) in HTTP:
        return urljoin(folder_of, quote(relative, safe="/%"))
    scheme, _, path = folder_of.partition("://")
    path = posixpath.join(posixpath.dirname(path), relative)
    # Keys may have empty segments: only what is asked for is normalized.
    return f"{scheme}://{posixpath.normpath(path) if {'.', '..'} & {*relative.split('/')} else path}"


def no_access(url: str, error: OSError) -> UsageError:
    """What to tell a user who named `url`."""
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{url}: no such file, folder or bucket: check its spelling ({error})")
    if isinstance(error, PermissionError):
        return UsageError(f"{url}: the store refuses it ({error}). Remedy: {login_remedy(url)}.")
    return UsageError(f"{url}: the store does not answer as it should ({error}). Check the network, then try again.")
