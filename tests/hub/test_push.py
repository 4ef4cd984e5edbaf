"""`audioprep push` against a server on loopback."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hub_helpers import OPEN, cli, make_set, pushed, tree
from hub_server import STRANGER, TOKEN, HubServer
from huggingface_hub import DatasetCard, constants
from huggingface_hub.utils._http import reset_sessions
from store_files import put

import audioprep.hub.push
from audioprep.cli.console import QuietConsole
from audioprep.commands import push
from audioprep.errors import SystemFault, UsageError

PUT = r"PUT /lfs/"


def plan(out: Path, **settings: Any) -> dict[str, Any]:
    wanted = {"out": out, "repository": "alice/songs"} | settings
    return push.plan(push.Settings.model_validate(wanted), QuietConsole())


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_the_repository_has_what_the_folder_has(hub: HubServer, tmp_path: Path, storage: Any) -> None:
    out = make_set(tmp_path / "out", 3, storage=storage)
    (out / "phonemes.vocab.txt").write_text("a\n")
    (out / "notes.txt").write_text("of my own")
    before = tree(out)
    summary = pushed(out)
    repo = hub.repos["alice/songs"]
    assert repo.private
    assert repo.messages == ["initial commit", "Push 12 items with audioprep"]
    there = repo.files()
    public = {path for path in before if path.startswith(("data/", "index/"))} | {"dataset.json", "phonemes.vocab.txt"}
    assert there.keys() == public | {"README.md", ".gitattributes"}
    assert {path: there[path] for path in public} == {path: before[path] for path in public}
    assert (summary["new_files"], summary["unchanged_files"], summary["deleted_files"]) == (len(public) + 1, 0, 0)
    assert tree(out) == before

    hub.forget()
    again = pushed(out)
    assert (again["new_files"], again["unchanged_files"]) == (0, len(public) + 1)
    assert hub.requests("(PUT|POST) ") == []


def test_a_set_in_a_store_is_pushed(
    hub: HubServer, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))
    pushed(make_set(tmp_path / "out", 3))
    pushed(put(tmp_path / "out", f"{bucket}/out"), "alice/from-a-store")
    here, there = (hub.repos[f"alice/{name}"].files() for name in ("songs", "from-a-store"))
    assert b"alice/from-a-store" in there.pop("README.md") and here.pop("README.md")
    assert there == here


def test_the_card_is_one(hub: HubServer, tmp_path: Path) -> None:
    pushed(make_set(tmp_path / "out", 3))
    card = DatasetCard(hub.repos["alice/songs"].files()["README.md"].decode())
    metadata = card.data.to_dict()
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["configs"][0]["data_files"] == [
        {"split": "test", "path": "data/test-*.parquet"},
        {"split": "train", "path": "data/train-*.parquet"},
    ]
    assert "| `audio_tokens` | dac-44khz | descript/dac_44khz | 44100 | 3 | 86.1328 | `ffffffffffffffff` |" in card.text
    assert f"| {OPEN} | 12 |" in card.text
    assert "failures.parquet" not in card.text


def test_an_appended_set_sends_only_what_is_new(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 2, last_rows=2)
    pushed(out)
    hub.forget()
    make_set(out, 3)  # the last shard was not full; it changes, and another one follows
    summary = pushed(out)
    assert (summary["new_files"], summary["unchanged_files"]) == (4, 1)  # two shards, the description and the card
    assert len(hub.requests(PUT)) == 2
    assert len(hub.requests("POST .*/commit/")) == 1
    assert json.loads(hub.repos["alice/songs"].files()["dataset.json"])["totals"]["rows"] == 12


def test_an_earlier_cut_is_removed(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 3)
    pushed(out, failures=True)
    files = hub.repos["alice/songs"].files()
    files["LICENSE"] = files["pictures/logo.png"] = b"by hand"
    hub.repos["alice/songs"].commit("main", files, "by hand")
    small = make_set(tmp_path / "small", 1)
    summary = pushed(small)
    assert summary["deleted_files"] == 3
    kept = {"data/test-00000.parquet", "dataset.json", "README.md", ".gitattributes", "LICENSE", "pictures/logo.png"}
    assert hub.repos["alice/songs"].files().keys() == kept


def test_a_set_of_many_shards_is_described_last(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(audioprep.hub.push, "COMMIT_FILES", 2)
    out = make_set(tmp_path / "out", 5)
    pushed(out)
    repo = hub.repos["alice/songs"]
    commits = list(repo.commits.values())
    new = [sorted({*after} - {*before}) for before, after in pairwise(commits)]
    shards = ["data/test-00000.parquet", *(f"data/train-{n:05d}.parquet" for n in range(1, 5))]
    assert new == [shards[:2], shards[2:4], shards[4:], ["README.md", "dataset.json"]]


def test_a_torn_upload_goes_on(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 6)
    puts = 0

    def fault(request: str) -> int | None:
        nonlocal puts
        puts += request.startswith("PUT")
        return 507 if request.startswith("PUT") and puts > 3 else None

    hub.faults = fault
    with pytest.raises(SystemFault, match="the same command goes on from there") as raised:
        pushed(out)
    assert TOKEN not in str(raised.value) and "secretsignature" not in str(raised.value)
    assert "507" in str(raised.value)
    assert hub.repos["alice/songs"].files().keys() == {".gitattributes"}  # nothing is described that is not there
    assert len(hub.store) == 3

    hub.faults = lambda request: None
    hub.forget()
    pushed(out)
    assert len(hub.requests(PUT)) == 3  # the rest
    assert len(hub.repos["alice/songs"].files()) == 9


def test_a_cut_connection_is_tried_again(hub: HubServer, tmp_path: Path) -> None:
    cut = iter(["cut"])
    hub.faults = lambda request: next(cut, None) if request.startswith("PUT") else None
    pushed(make_set(tmp_path / "out", 2))
    assert len(hub.repos["alice/songs"].files()) == 5


def test_two_pushes_at_once_do_not_mix(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 2)
    pushed(out)
    make_set(out, 3)
    repo = hub.repos["alice/songs"]

    def other(request: str) -> None:
        if "/preupload/" in request and repo.messages[-1] != "of another":
            repo.commit("main", repo.files(), "of another")

    hub.faults = other
    with pytest.raises(UsageError, match="changed meanwhile"):
        pushed(out)


def test_branches_and_pull_requests(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    out = make_set(tmp_path / "out", 2)
    summary = pushed(out, revision="v2")
    repo = hub.repos["alice/songs"]
    assert repo.files().keys() == {".gitattributes"} and len(repo.files("v2")) == 5
    assert 'revision="v2"' in repo.files("v2")["README.md"].decode()
    assert summary["repository"] == "alice/songs@v2"

    repo.private = False
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(UsageError, match="--create-pr"):
        pushed(out, public=True)
    monkeypatch.setattr(audioprep.hub.push, "COMMIT_FILES", 1)
    hub.forget()
    summary = pushed(out, public=True, create_pr=True)
    assert summary["url"].endswith("/alice/songs/discussions/1")
    assert len(repo.files("refs/pr/1")) == 5 and repo.files().keys() == {".gitattributes"}


def test_a_dry_run_changes_nothing(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 2)
    before = tree(out)
    summary = plan(out)
    assert summary["files"][0].split() == [
        "send", f"{len(before['data/test-00000.parquet']):,}", "data/test-00000.parquet",
    ]  # fmt: skip
    assert [line.split()[-1] for line in summary["files"]][-2:] == ["README.md", "dataset.json"]
    pushed(out)
    hub.forget()
    make_set(out, 1)
    said = [line.split()[0] for line in plan(out)["files"]]
    assert sorted(said) == ["delete", "send", "send", "there"]
    assert hub.requests("(PUT|POST|DELETE) ") == []
    assert len(hub.repos["alice/songs"].commits) == 2


def test_restricted_licences_are_refused(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 2, licenses=[OPEN, OPEN, OPEN, "CC BY-NC-ND 4.0"])
    with pytest.raises(UsageError) as raised:
        pushed(out)
    assert "the licence of 2 items forbids derivatives: 'CC BY-NC-ND 4.0', such as https://example.org/3.flac" in str(
        raised.value
    )
    assert "alice/songs" not in hub.repos
    assert plan(out)["problems"] == [str(raised.value).partition("\n- ")[2]]
    pushed(out, allow=["restricted"])
    metadata = DatasetCard(hub.repos["alice/songs"].files()["README.md"].decode()).data.to_dict()
    assert (metadata["license"], metadata["license_name"]) == ("other", "mixed")


def test_what_everyone_may_read_is_asked_about(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 1, licenses=[None, OPEN], uris="/music/{}.flac")
    with pytest.raises(UsageError) as raised:
        pushed(out, public=True)
    assert "2 items state no licence" in str(raised.value)
    assert "4 items have one in `uri`, and dataset.json may, such as /music/" in str(raised.value)
    assert hub.repos == {}
    summary = pushed(out)  # a private one is told of them
    assert summary["local_paths"].startswith("/music/")
    assert summary["licenses"] == {"not stated": 2, OPEN: 2}
    with pytest.raises(UsageError, match="is private on the Hub: leave --public out"):
        pushed(out, public=True, allow=["unlicensed", "paths"])
    pushed(out, "alice/open", public=True, allow=["unlicensed", "paths"])
    assert not hub.repos["alice/open"].private
    with pytest.raises(UsageError, match="is public on the Hub: add --public"):
        pushed(out, "alice/open")


def test_a_repository_of_something_else(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 1)
    for files in ({"data/train-00000-of-00001.parquet": b"PAR1"}, {"dataset.json": b"{}", "train.csv": b""}):
        hub.add("alice/songs", files=files)
        with pytest.raises(UsageError, match="is no shard set of audioprep"):
            pushed(out)
        assert len(hub.repos["alice/songs"].commits) == 1


def test_a_card_written_by_hand_can_stay(hub: HubServer, tmp_path: Path) -> None:
    hub.add("alice/songs", files={"README.md": b"# By hand\n"})
    pushed(make_set(tmp_path / "out", 1), card=False)
    assert hub.repos["alice/songs"].files()["README.md"] == b"# By hand\n"


def test_a_damaged_shard_is_not_sent(hub: HubServer, tmp_path: Path) -> None:
    out = make_set(tmp_path / "out", 2)
    shard = out / "data" / "train-00001.parquet"
    data = bytearray(shard.read_bytes())
    data[200] ^= 1  # in the tokens' pages, so that licences can be read
    shard.write_bytes(data)
    with pytest.raises(UsageError, match=r"train-00001.parquet: is not what dataset.json says"):
        pushed(out)
    shard.unlink()
    with pytest.raises(UsageError, match="is not there"):
        pushed(out)


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("", "alice/songs", "you are not logged in: log in with `hf auth login`"),
        (STRANGER, "alice/songs", "no permission"),
        (TOKEN, "alice/gated", "is gated. Accept its terms"),
        (TOKEN, "songs", "write a repository of the Hub like org/name"),
        (TOKEN, "alice/a--b", "write a repository"),
        ("hf_wrongButLongEnough", "alice/songs", "does not know you"),
    ],
)
def test_errors_say_what_to_do(
    hub: HubServer, tmp_path: Path, monkeypatch, token: str, repository: str, message: str
) -> None:
    if repository == "alice/gated":
        hub.add(repository, private=False).gated = True
        token = STRANGER
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=message) as raised:
        pushed(make_set(tmp_path / "out", 1), repository)
    assert not token or token not in str(raised.value)


def test_no_hub_at_all(hub: HubServer, tmp_path: Path) -> None:
    hub.close()
    with pytest.raises(SystemFault, match="alice/songs: cannot look at it"):
        pushed(make_set(tmp_path / "out", 1))


def test_offline(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set: unset it"):
        pushed(make_set(tmp_path / "out", 1))


def test_the_token_is_nowhere(server: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    """Not in what is said, nor in a file, also where the Hub and the client say it: in errors and warnings."""
    out = make_set(tmp_path / "out", 2)
    faults = iter([500, None, 403])
    server.faults = lambda request: next(faults, None) if request.startswith("PUT") else None
    failed = cli(environment, "push", out, "alice/songs")
    assert failed.returncode == 1
    assert "you have no permission" in failed.stderr and "HTTP Error 500" in failed.stderr
    for secret in (TOKEN, TOKEN[:12], "secretsignature"):
        assert secret not in failed.stdout + failed.stderr
        assert all(secret.encode() not in data for data in tree(tmp_path).values())
