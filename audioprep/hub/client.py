"""The Hub's client: names of repositories, and errors that say what to do and never show a token."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioprep.engine.commit import read_json
from audioprep.errors import SYSTEM_ERRNOS, SystemFault, UsageError
from audioprep.hub.files import DESCRIPTION

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

# Tokens, and the signatures of addresses that let anyone in who has them.
_SECRETS = re.compile(r"hf_\w{6,}|(?<=earer )\S+|(?<=\?)[^\s'\")]*(?:[Ss]ignature|[Tt]oken|Credential)=[^\s'\")]*")
_NAME = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of data sets on the Hub, at a branch, a tag or a commit.

    Attributes:
        id: `org/name`.
        revision: None: the default branch.
    """

    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Reads `org/name` or `org/name@revision`.

        Raises:
            UsageError: it is neither.
        """
        found = _NAME.fullmatch(text)
        if found is None or "--" in text or ".." in text:
            raise UsageError(f"{text}: write a repository of the Hub like org/name or org/name@revision")
        return cls(found["id"], found["revision"])

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


def open_hub() -> HfApi:
    """The client. It asks HF_ENDPOINT with HF_TOKEN or the login of this machine, and is told no token by us."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # its bars, one a file, would be drawn over ours
    for handler in logging.getLogger("huggingface_hub").handlers:
        if not any(isinstance(known, _Masked) for known in handler.filters):
            handler.addFilter(_Masked())
    return HfApi(library_name="audioprep")


def files_of(api: HfApi, repository: Repository) -> dict[str, RepoFile]:
    """The files of a repository, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repository.id, repo_type="dataset", revision=repository.revision, recursive=True)
    return {file.path: file for file in tree if isinstance(file, RepoFile)}


def download(api: HfApi, repository: Repository, path: str, folder: Path) -> Path:
    """Brings one file into a folder; what of it is there already is not fetched again."""
    found = api.hf_hub_download(
        repository.id, path, repo_type="dataset", revision=repository.revision, local_dir=folder
    )
    return Path(found)


def description_of(api: HfApi, repository: Repository) -> dict[str, Any] | None:
    """The `dataset.json` of a repository, which has one; None where it is no JSON object."""
    with tempfile.TemporaryDirectory(prefix="audioprep-hub-") as folder:
        return read_json(download(api, repository, DESCRIPTION, Path(folder)))


def masked(text: str) -> str:
    """`text` without tokens and signatures."""
    from huggingface_hub import get_token

    token = get_token()
    return _SECRETS.sub("…", text.replace(token, "…") if token else text)


class _Masked(logging.Filter):
    """The client says whole addresses where it tries again."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage()), ()
        return True


@contextlib.contextmanager
def hub_errors(repository: Repository, doing: str) -> Iterator[None]:
    """Turns what the client raises into errors of ours.

    Args:
        repository: that is asked.
        doing: what, for messages, as `upload`.

    Raises:
        UsageError: no login, no permission, no such repository or branch, or someone else has changed it meanwhile.
        SystemFault: no network, or the Hub is at fault; the same call goes on later.
    """
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise UsageError(
            f"{repository}: is gated. Accept its terms on its page, {_LOGIN}, and run the same command again."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise UsageError(f"{repository}: has no such branch, tag or commit") from error
    except hub.RepositoryNotFoundError as error:
        raise UsageError(
            f"{repository}: there is no such data set on the Hub, or you may not see it: check the name, or {_LOGIN}."
        ) from error
    except (hub.LocalTokenNotFoundError, hub.OfflineModeIsEnabled) as error:
        offline = isinstance(error, hub.OfflineModeIsEnabled)
        remedy = "HF_HUB_OFFLINE is set: unset it" if offline else f"you are not logged in: {_LOGIN}"
        raise UsageError(f"{repository}: cannot {doing}: {remedy}") from error
    except hub.HFValidationError as error:
        raise UsageError(f"{repository}: {masked(str(error))}") from error
    except (hub.HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explained(repository, doing, error) from error


def _explained(repository: Repository, doing: str, error: BaseException) -> UsageError | SystemFault:
    if isinstance(error, OSError) and error.errno in SYSTEM_ERRNOS:
        return SystemFault(f"{repository}: cannot {doing}: {error.strerror}. Mend that and run the same command again.")
    first = error
    while first.__cause__ is not None and _status(first) is None:
        first = first.__cause__  # the client says that a file has failed, and why stands behind it
    status = _status(first)
    said = " ".join(masked(str(first)).split()) or type(first).__name__
    if status == 401:
        return UsageError(f"{repository}: cannot {doing}: the Hub does not know you: {_LOGIN}. It said: {said}")
    if status == 403:
        return UsageError(
            f"{repository}: cannot {doing}: you have no permission. A token needs the right to write to this "
            f"repository; whoever may only read can use --create-pr. It said: {said}"
        )
    if status in (409, 412):
        return UsageError(f"{repository}: was changed meanwhile; run the same command again. The Hub said: {said}")
    return SystemFault(
        f"{repository}: cannot {doing}: {said}\nWhat has arrived stays: the same command goes on from there."
    )


def _status(error: BaseException) -> int | None:
    """Of the reply that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)
