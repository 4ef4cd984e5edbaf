"""What goes wrong with stores, as the OSErrors that local files give too."""

from __future__ import annotations

import errno

from audioprep.errors import SYSTEM_ERRNOS

# Packages behind fsspec that raise exceptions of their own.
_LIBRARIES = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "gcsfs",
    "google",
    "httpx",
    "huggingface_hub",
    "requests",
    "urllib3",
}
_NO_LOGIN = ("Credential", "RefreshError", "SSOToken", "TokenRetrieval", "ProfileNotFound")
_REMEDIES = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_ENDPOINT_URL for a store elsewhere); "
    "FSSPEC_S3_ANON=true for a public bucket",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "run `hf auth login` or set HF_TOKEN, and accept the repository's terms on the Hub where it has some",
}


def to_os_error(error: BaseException) -> OSError | None:
    """What the exception of a store's package means; None where it comes from elsewhere."""
    if isinstance(error, FileNotFoundError) and error.__cause__ and _package(error.__cause__) == "aiohttp":
        error = error.__cause__  # whatever fails, fsspec says of HTTP that there is no such file
    if not isinstance(error, OSError | EOFError) and _package(error) not in _LIBRARIES:
        return None
    text = str(error) or type(error).__name__
    if any(name in type(error).__name__ for name in _NO_LOGIN):
        return PermissionError(errno.EACCES, text)
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None) or getattr(error, "code", None)
    if status in (401, 403, 407):
        return PermissionError(errno.EACCES, text)
    if status in (404, 410) or type(error).__name__ == "ParamValidationError":  # no bucket can be called so
        return FileNotFoundError(errno.ENOENT, text)
    return error if isinstance(error, OSError) else OSError(errno.EIO, text)


def is_lasting(error: OSError) -> bool:
    """Whether another try would give the same."""
    kinds = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, kinds) or error.errno in SYSTEM_ERRNOS


def login_remedy(url: str) -> str:
    """How one gets permission to read and write at `url`."""
    scheme = url.partition("://")[0].lower()
    return _REMEDIES.get({"s3a": "s3", "gcs": "gs"}.get(scheme, scheme), "check its permissions")


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]
