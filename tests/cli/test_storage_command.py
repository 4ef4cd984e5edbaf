"""The command line on stores and on slices of a set."""

from pathlib import Path

import pytest
from cli_helpers import Cli

from audioprep.samples import sample_folder
from audioprep.storage.files import read_bytes
from audioprep.storage.places import to_place


def test_slices_to_a_store_give_the_bytes_of_one_local_run(cli: Cli, bucket: str, tmp_path: Path):
    common = ["tokenize", sample_folder(), "--limit", "4", "--part-size", "2", "--workers", "1", "--json", "--quiet"]
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
        (["--out", "here", "--exclude", "s3://b/list"], "--exclude: s3://b/list: only a local path is taken here"),
        (["--out", "s3://no-such-bucket/x"], "there is no such bucket. Make it, or choose another --out."),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments: list[str], message: str, cli: Cli, bucket: str):
    result = cli("tokenize", sample_folder(), *arguments, "--quiet")
    assert result.code == 1 and message in result.err
    assert result.err.count("\n") == 1
