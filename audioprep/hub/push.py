"""Sends a shard set to the Hub: what is there already is not sent again, and readers never meet half of it.

`upload_large_folder` of the client is not used: it leaves its notes in the folder, takes no message, no pull request
and nothing to delete, and commits files in the order in which they arrive. Here the contents go first, in parallel,
each under its sha256, which is what makes a torn upload resumable: the store knows the contents that it has, committed
or not. A commit then only names them. So a set of some dozens of shards is one commit, all or nothing. Of a larger
one, shards with new names are committed on the way, as the store keeps what no commit names for about a day; what
replaces or removes anything goes with `dataset.json` and the card into the last commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from audioprep.errors import SystemFault, UsageError
from audioprep.hub.client import Repository, description_of, files_of, hub_errors
from audioprep.hub.files import CARD, DESCRIPTION, PublicFile, is_ours

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

COMMIT_FILES = 100  # as the Hub advises; it takes 128 commits an hour
UPLOADS = 4  # files at a time
_OTHERS = {CARD, ".gitattributes", "LICENSE", "LICENSE.md", "LICENSE.txt", ".gitignore"}
_SHOWN = 3

OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A repository as it is now.

    Attributes:
        repository: with the branch.
        head: the last commit of the branch; None: there is no such branch or repository.
        private: None: there is no repository.
        files: of the branch, by path.
        is_shard_set: whether its `dataset.json` is one of audioprep.
    """

    repository: Repository
    head: str | None
    private: bool | None
    files: dict[str, RepoFile] = field(default_factory=dict)
    is_shard_set: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What a push does.

    Attributes:
        send: files that the repository does not have so; the description is the last one.
        keep: files that it has.
        delete: paths of an earlier cut.
    """

    send: list[PublicFile]
    keep: list[PublicFile]
    delete: list[str]


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a set has gone.

    Attributes:
        commit: the last one.
        url: of the set, or of the pull request.
    """

    commit: str
    url: str


def look(api: HfApi, repository: Repository) -> Target:
    """
    Raises:
        UsageError: the repository cannot be seen for another reason than that it is not there.
        SystemFault: see `hub_errors`.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    with hub_errors(repository, "look at it"):
        try:
            info = api.repo_info(repository.id, repo_type="dataset")
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            api.whoami()  # without a login, every private repository looks like none
            return Target(repository, None, None)
        try:
            if repository.revision:
                info = api.repo_info(repository.id, repo_type="dataset", revision=repository.revision)
            files = files_of(api, repository)
        except RevisionNotFoundError:
            return Target(repository, None, info.private)
        described = description_of(api, replace(repository, revision=info.sha)) if DESCRIPTION in files else None
    return Target(repository, info.sha, info.private, files, (described or {}).get("format") == "audioprep")


def compare(target: Target, files: Iterable[PublicFile]) -> Changes:
    """Says what a repository lacks of `files`, and what it has of an earlier cut.

    Raises:
        UsageError: the repository holds something that is not ours.
    """
    files = list(files)
    foreign = [path for path in target.files if path not in _OTHERS and not is_ours(path)]
    if foreign and not target.is_shard_set:
        raise UsageError(
            f"{target.repository}: holds {', '.join(foreign[:_SHOWN])} and is no shard set of audioprep. Choose "
            "another repository."
        )
    same = {file.path for file in files if _is_there(file, target.files.get(file.path))}
    wanted = {file.path for file in files}
    return Changes(
        send=[file for file in files if file.path not in same],
        keep=[file for file in files if file.path in same],
        delete=sorted(path for path in target.files if is_ours(path) and path not in wanted),
    )


def send(
    api: HfApi,
    target: Target,
    changes: Changes,
    *,
    private: bool,
    create_pr: bool,
    message: str,
    on_bytes: OnBytes,
) -> Pushed:
    """Sends what a repository lacks, and checks what it has then.

    Args:
        api: the client.
        target: as `look` gives it; a repository or a branch that is not there is made.
        changes: as `compare` gives them.
        private: of a repository that is made.
        create_pr: open a pull request, rather than to change the branch.
        message: of the commits.
        on_bytes: called with the bytes sent and those to be sent.

    Raises:
        UsageError: a file is not what `dataset.json` says; no permission; someone else pushes at the same time.
        SystemFault: the connection or the Hub fails; the same call goes on where it was.
    """
    repository = target.repository
    with hub_errors(repository, "make it"):
        head = target.head or _make(api, target, private, create_pr)
    branch, url, open_pr = repository.revision, f"{api.endpoint}/datasets/{repository.id}", create_pr
    sent, total = 0, sum(file.size for file in changes.send)

    def count(size: int) -> None:
        nonlocal sent
        sent += size
        on_bytes(sent, total)

    for files, deleted in _commits(target, changes):
        with hub_errors(repository, "upload to it"):
            operations = _upload(api, repository, branch, open_pr, files, count)
            commit = api.create_commit(
                repository.id,
                [*operations, *_deletions(deleted)],
                commit_message=message,
                repo_type="dataset",
                revision=branch,
                create_pr=open_pr,
                parent_commit=head,
            )
        head = commit.oid
        if open_pr:  # what is left goes into the same request
            branch, url, open_pr = commit.pr_revision, commit.pr_url or url, False
    _check(look(api, replace(repository, revision=head)), [*changes.keep, *changes.send], changes.delete)
    return Pushed(head, url)


def _make(api: HfApi, target: Target, private: bool, create_pr: bool) -> str:
    """Makes the repository, and the branch; gives the branch's last commit."""
    repository = target.repository
    if create_pr and target.head is None:
        raise UsageError(f"{repository}: is not there, and a pull request needs something to be pulled into")
    if target.private is None:
        api.create_repo(repository.id, repo_type="dataset", private=private)
    if repository.revision:
        api.create_branch(repository.id, repo_type="dataset", branch=repository.revision, exist_ok=True)
    head = api.repo_info(repository.id, repo_type="dataset", revision=repository.revision).sha
    assert head
    return head


def _commits(target: Target, changes: Changes) -> list[tuple[Sequence[PublicFile], Sequence[str]]]:
    """Cuts what is to be sent into commits: files with new names first, and all that changes what is there at last."""
    if len(changes.send) <= COMMIT_FILES:
        return [(changes.send, changes.delete)] if changes.send or changes.delete else []
    at_last = {*target.files, CARD, DESCRIPTION}
    last = [file for file in changes.send if file.path in at_last]
    new = [file for file in changes.send if file.path not in at_last]
    first = [(new[start : start + COMMIT_FILES], []) for start in range(0, len(new), COMMIT_FILES)]
    return [*first, *([(last, changes.delete)] if last or changes.delete else [])]


def _upload(
    api: HfApi, repository: Repository, branch: str | None, create_pr: bool, files: Sequence[PublicFile],
    count: Callable[[int], None],
) -> list[CommitOperationAdd]:  # fmt: skip
    """Uploads contents in parallel; what the store has already is not sent."""
    from huggingface_hub import CommitOperationAdd

    def upload(file: PublicFile) -> CommitOperationAdd:
        operation = CommitOperationAdd(
            file.path, file.content if isinstance(file.content, bytes) else str(file.content)
        )
        if file.sha256 not in (None, operation.upload_info.sha256.hex()):
            raise UsageError(
                f"{file.content}: is not what dataset.json says: it was changed or damaged. `audioprep verify` says "
                "more; run the command that made the set again with --check sha256."
            )
        api.preupload_lfs_files(
            repository.id, [operation], repo_type="dataset", revision=branch, create_pr=create_pr, free_memory=False
        )
        return operation

    with ThreadPoolExecutor(UPLOADS) as pool:
        futures = {pool.submit(upload, file): file for file in files}
        try:
            for future in as_completed(futures):
                future.result()
                count(futures[future].size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _deletions(paths: Sequence[str]) -> list:
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path, is_folder=False) for path in paths]


def _is_there(file: PublicFile, there: RepoFile | None) -> bool:
    if there is None or there.size != file.size:
        return False
    if there.lfs is not None:
        return there.lfs.sha256 == (file.sha256 or file.digest("sha256"))
    return there.blob_id == file.digest("git")


def _check(after: Target, files: Sequence[PublicFile], deleted: Sequence[str]) -> None:
    """
    Raises:
        SystemFault: the repository does not have what was sent.
    """
    wrong = [file.path for file in files if not _is_there(file, after.files.get(file.path))]
    wrong += [path for path in deleted if path in after.files]
    if wrong:
        raise SystemFault(
            f"{after.repository}: after the upload {len(wrong)} files are not as they were sent: "
            f"{', '.join(wrong[:_SHOWN])}. Run the same command again."
        )
