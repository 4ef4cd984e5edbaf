"""The command line on stores and on slices of a set."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_helpers import Cli, start
from faulty_proxy import FaultyProxy, at_random
from upath import UPath

from audioprep.engine.layout import Layout
from audioprep.samples import sample_folder
from audioprep.storage.files import listing, read_bytes
from audioprep.storage.places import to_place, to_url

QUICK = ("--codec", "fingerprint", "--workers", "1", "--quiet")  # without torch, whose import takes seconds


def test_slices_to_a_store_give_the_bytes_of_one_local_run(cli: Cli, bucket: str, tmp_path: Path):
    common = ["tokenize", sample_folder(), "--limit", "4", "--part-size", "2", "--json", *QUICK]
    whole = cli(*common, "--out", tmp_path / "out").json
    out = f"{bucket}/set"
    first = cli(*common, "--out", out, "--shard-of", "2/2")
    assert first.code == 0
    assert first.json == {
        "out": out, "shard_of": "2/2", "inputs": 4, "parts_done": 1, "parts_left": 1, "excluded": 0
    } | ({"codec": first.json["codec"]} if "codec" in first.json else {})  # fmt: skip
    last = cli(*common, "--out", out, "--shard-of", "1/2").json
    assert {name: last[name] for name in ("out", "rows", "failed")} == {
        "out": out, "rows": whole["rows"], "failed": whole["failed"]
    }  # fmt: skip
    for path in (tmp_path / "out/data").iterdir():
        assert read_bytes(to_place(out) / "data" / path.name) == path.read_bytes()
    assert read_bytes(to_place(out) / "dataset.json") == (tmp_path / "out/dataset.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere://x"], "--out: nowhere://x: no store is known for nowhere://"),
        (["--out", "here", "--shard-of", "9/8"], "--shard-of 9/8: write it like --shard-of 3/8"),
        (["--out", "here", "--metrics", "s3://b/list"], "--metrics: s3://b/list: only a local path is taken here"),
        (["--out", "s3://no-such-bucket/x"], "there is no such bucket. Make it, or choose another --out."),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments: list[str], message: str, cli: Cli, bucket: str):
    result = cli("tokenize", sample_folder(), *arguments, "--quiet")
    assert result.code == 1 and message in result.err
    assert result.err.count("\n") == 1


def test_from_store_to_store_on_a_bad_day(
    cli: Cli, bucket: str, tmp_path: Path, bad_network: FaultyProxy, make_older: Callable[[UPath, float], None]
):
    """Killed in the middle, begun again, while one request in six fails: the bytes of a run to a disk on a good day."""
    for path in (sample_folder() / "speech").iterdir():  # three recordings with texts
        to_url(bucket).fs.put_file(str(path), f"{bucket}/speech/{path.name}")
    common = ["tokenize", f"{bucket}/speech", "--part-size", "1", *QUICK, "--out"]
    assert cli(*common, tmp_path / "out").code == 0
    out = to_url(f"{bucket}/set")

    bad_network.choose = at_random(0.15, seed=1)
    killed = start(*common, str(out))
    while not any(name.endswith(".json") for folder in Layout(out).stages() for name in listing(folder)):
        assert killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    make_older(out / ".audioprep/lock", 100)
    done = cli(*common, str(out))
    assert done.code == 0, done.err
    bad_network.choose = lambda method, path: None
    for name in ("data/train-00000.parquet", "README.md", "dataset.json", "failures.parquet"):
        assert read_bytes(out / name) == (tmp_path / "out" / name).read_bytes(), name
    assert len(bad_network.seen) > 3
