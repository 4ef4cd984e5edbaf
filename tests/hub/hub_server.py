"""A server on loopback that answers what huggingface_hub asks, as far as audioprep uses it.

A revision is a dict from paths to contents. Every request is written down; faults can be ordered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_thisIsMadeUpForTests0123456789ab"
STRANGER = "hf_ofAnotherUserForTests0123456789"
_LFS = (".parquet", ".tar")
PAGE = 4  # entries of a tree in one answer


@dataclass
class Repo:
    """A repository: its branches, pull requests among them, and all commits."""

    private: bool
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        text = json.dumps([len(self.commits), message, sorted(files)])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class HubServer:
    """
    Attributes:
        repos: by `org/name`.
        store: contents of large files by sha256, committed or not.
        log: `METHOD path` of every request.
        faults: called with `METHOD path` and the handler; gives an error's status, `cut`, or None.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}
        self.log: list[str] = []
        self.closed = False
        self.faults: Callable[[str], int | str | None] = lambda request: None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self.closed = True  # for the connections that are open
        self._http.shutdown()
        self._http.server_close()

    def add(self, name: str, private: bool = True, files: dict[str, bytes] | None = None) -> Repo:
        self.repos[name] = repo = Repo(private)
        repo.commit("main", {".gitattributes": b"*.parquet filter=lfs\n"} | (files or {}), "initial commit")
        return repo

    def requests(self, pattern: str) -> list[str]:
        """Those since the last call of `forget` that a pattern describes."""
        return [request for request in self.log if re.match(pattern, request)]

    def forget(self) -> None:
        self.log.clear()


class _Reply(Exception):
    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _error(status: int, code: str, message: str) -> _Reply:
    return _Reply(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: HubServer, *rest: Any) -> None:
        self.hub = hub
        super().__init__(*rest)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = f"{self.command} {unquote(parts.path)}"
        self.hub.log.append(request)
        fault = "cut" if self.hub.closed else self.hub.faults(request)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        try:
            if isinstance(fault, int):
                said = f"the header was {self.headers.get('Authorization')}"  # as no server should say it
                raise _Reply(fault, {"error": said}, X_Error_Message=said)
            self._route(parts.path)
            raise _error(404, "EntryNotFound", f"no route for {request}")
        except _Reply as reply:
            self.send_response(reply.status)
            usual = {"Content-Type": "application/json", "Content-Length": str(len(reply.body))}
            for name, value in (usual | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

    def _route(self, path: str) -> None:
        routes = [
            (r"/api/whoami-v2", self._whoami),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda: _Reply(200, {"errors": [], "warnings": []})),
            (r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._info),
            (r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self._tree),
            (r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", self._paths_info),
            (r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)", self._branch),
            (r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", self._preupload),
            (r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", self._commit),
            (r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/([0-9a-f]{64})", self._put),
            (r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ]
        for pattern, answer in routes:
            if found := re.fullmatch(pattern, path):
                raise answer(*(group and unquote(group) for group in found.groups()))

    def _user(self) -> str | None:
        return {f"Bearer {TOKEN}": "alice", f"Bearer {STRANGER}": "bob"}.get(self.headers.get("Authorization", ""))

    def _repo(self, name: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self._user() != "alice"):
            raise _error(401 if self._user() is None else 404, "RepoNotFound", "Repository not found")
        if repo.gated and self._user() != "alice":
            raise _error(403, "GatedRepo", "Access to it is restricted")
        if write and self._user() != "alice":
            raise _error(403, "", "You don't have the required permissions")
        return repo

    def _proposes(self, revision: str) -> bool:
        """Whether it is about a pull request, which whoever may read can make."""
        return "create_pr" in self.query or revision.startswith("refs/pr/")

    def _commit_of(self, repo: Repo, revision: str | None) -> str:
        revision = revision or "main"
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _whoami(self) -> _Reply:
        user = self._user()
        return _Reply(200, {"type": "user", "name": user}) if user else _error(401, "", "Invalid username or password.")

    def _create(self) -> _Reply:
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if self._user() != "alice":
            return _error(403 if self._user() else 401, "", "You don't have the rights to create a dataset")
        if name in self.hub.repos:
            return _error(409, "", "You already created this dataset repo")
        self.hub.add(name, wanted.get("private", False))
        return _Reply(200, {"url": f"{self.hub.url}/datasets/{name}"})

    def _info(self, name: str, revision: str | None) -> _Reply:
        repo = self._repo(name)
        commit = self._commit_of(repo, revision)
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        said = {"id": name, "_id": "0", "sha": commit, "private": repo.private, "siblings": siblings, "tags": []}
        return _Reply(200, said)

    def _tree(self, name: str, revision: str, folder: str | None) -> _Reply:
        repo = self._repo(name)
        files = repo.commits[self._commit_of(repo, revision)]
        prefix = f"{folder}/" if folder else ""
        below = {path: data for path, data in files.items() if path.startswith(prefix)}
        recursive = self.query.get("recursive", "").lower() == "true"
        folders = {
            path[: cut.start()] for path in below for cut in re.finditer("/", path) if cut.start() >= len(prefix)
        }
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [_entry(path, below[path]) for path in sorted(below)]
        if not recursive:
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        if folder and not below:
            return _error(404, "EntryNotFound", f"{folder} does not exist")
        start = int(self.query.get("cursor", 0))
        rest = {}
        if start + PAGE < len(entries):
            query = f"recursive={recursive}&cursor={start + PAGE}"
            rest = {"Link": f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'}
        return _Reply(200, entries[start : start + PAGE], **rest)

    def _paths_info(self, name: str, revision: str) -> _Reply:
        repo = self._repo(name)
        files = repo.commits[self._commit_of(repo, revision)]
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        found = [_entry(path, files[path]) for path in paths if path in files]
        found += [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in paths
            if any(other.startswith(f"{path}/") for other in files)
        ]
        return _Reply(200, found)

    def _branch(self, name: str, branch: str) -> _Reply:
        repo = self._repo(name, write=True)
        if branch in repo.branches:
            return _error(409, "", "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        return _Reply(200)

    def _preupload(self, name: str, revision: str) -> _Reply:
        repo = self._repo(name, write=not self._proposes(revision))
        self._commit_of(repo, revision)
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LFS) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in files
        ]
        return _Reply(200, {"files": modes})

    def _batch(self, name: str) -> _Reply:
        self._repo(name)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.url}/lfs/{wanted['oid']}?X-Amz-Signature=secretsignature"
            actions = {} if wanted["oid"] in self.hub.store else {"actions": {"upload": {"href": href}}}
            objects.append(wanted | actions)
        return _Reply(200, {"transfer": "basic", "objects": objects})

    def _put(self, sha256: str) -> _Reply:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            return _error(400, "", "the content is not what its name says")
        self.hub.store[sha256] = self.body
        return _Reply(200)

    def _commit(self, name: str, revision: str) -> _Reply:
        create_pr = "create_pr" in self.query
        repo = self._repo(name, write=not self._proposes(revision))
        parent = self._commit_of(repo, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", parent) != parent:
            return _error(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[parent])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        branch, request = revision, None
        if create_pr:
            number = sum(name.startswith("refs/pr/") for name in repo.branches) + 1
            branch, request = f"refs/pr/{number}", f"{self.hub.url}/datasets/{name}/discussions/{number}"
        commit = repo.commit(branch, files, header["summary"])
        said = {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{commit}", "commitOid": commit}
        return _Reply(200, said | {"pullRequestUrl": request})

    def _resolve(self, name: str, revision: str, path: str) -> _Reply:
        repo = self._repo(name)
        commit = self._commit_of(repo, revision)
        if path not in repo.commits[commit]:
            return _error(404, "EntryNotFound", f"{path} does not exist")
        data = repo.commits[commit][path]
        entry = _entry(path, data)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"ETag": f'"{etag}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes",
                   "Content_Type": "application/octet-stream"}  # fmt: skip
        if self.command == "HEAD":
            return _Reply(200, b"", Content_Length=str(len(data)), **headers)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            span = f"bytes {start}-{end}/{len(data)}"
            return _Reply(206, data[start : end + 1], Content_Range=span, **headers)
        return _Reply(200, data, **headers)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as trees list it; of a large one git holds only a pointer."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if not path.endswith(_LFS):
        return entry
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    return entry | {"oid": oid, "lfs": {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}}
