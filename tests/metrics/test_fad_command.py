"""`audioprep fad` and `audioprep clap-score`, on shard sets as the encoders leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audioprep.cli.console import QuietConsole
from audioprep.cli.recipe import run_command
from audioprep.errors import UsageError
from audioprep.metrics.frechet import fit_gaussian, frechet_distance
from audioprep.shards.columns import array_type, to_table, vector_type

DIM = 8
SPEC = {
    "name": "clap", "encoder": "clap", "encoder_settings": {"weights": "nowhere"}, "kind": "embedding",
    "fingerprint": "abc", "pooling": "mean", "window": 480_000, "settings": {"int16": True, "torch": "2.7"},
}  # fmt: skip


def vectors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)) + seed
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, rows: Any, spec: dict[str, Any] = SPEC, splits: tuple[str, ...] = ("train",)) -> Path:
    """A shard set with a column of vectors, or of arrays where a row has several, and prompts; a shard a split."""
    make = vector_type if rows[0].ndim == 1 else array_type
    fields = [("id", pa.string()), ("prompt", pa.string()), ("clap_embedding", make(pa.float32(), DIM))]
    schema = pa.schema(fields)
    shards = []
    for number, split in enumerate(splits):
        part = [
            {"id": str(row), "prompt": None, "clap_embedding": value}
            for row, value in enumerate(rows)
            if row % len(splits) == number
        ]
        path = f"data/{split}-00000.parquet"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(part, schema), folder / path)
        shards.append({"path": path, "split": split, "rows": len(part), "sha256": ""})
    columns = {field.name: str(field.type) for field in schema}
    description = {"schema_version": 1, "storage": "parquet", "encoders": {"clap_embedding": spec}, "columns": columns}
    (folder / "dataset.json").write_text(json.dumps(description | {"shards": shards, "totals": {}}))
    return folder


def fad(reference: Path, evaluated: Path, **options: Any) -> dict[str, Any]:
    settings = {"reference": reference, "evaluated": evaluated} | options
    return run_command("fad", settings, False, QuietConsole())[1]


def test_the_distance_of_two_shard_sets(tmp_path: Path):
    first, second = vectors(300, 0), vectors(200, 1)
    found = fad(write(tmp_path / "a", first), write(tmp_path / "b", second))
    assert found == {
        "fad": pytest.approx(frechet_distance(fit_gaussian([first]), fit_gaussian([second])), rel=1e-9),
        "n_reference": 300,
        "n_evaluated": 200,
        "dim": DIM,
        "warnings": [],
    }


def test_every_window_counts_where_all_are_kept(tmp_path: Path):
    rows = vectors(60, 0)
    write(tmp_path / "a", np.split(rows, [10, 11, 40]), SPEC | {"pooling": None})
    np.save(tmp_path / "b.npy", rows)
    found = fad(tmp_path / "a", tmp_path / "b.npy")
    assert found["n_reference"] == 60
    assert found["fad"] < 1e-6


def test_one_split_of_several(tmp_path: Path):
    rows = vectors(80, 0)
    write(tmp_path / "a", rows, splits=("train", "test"))
    np.save(tmp_path / "b.npy", rows[1::2])
    assert fad(tmp_path / "a", tmp_path / "b.npy", split="test")["fad"] < 1e-6
    assert fad(tmp_path / "a", tmp_path / "b.npy")["n_reference"] == 80
    with pytest.raises(UsageError, match="has no split testing. Did you mean test"):
        fad(tmp_path / "a", tmp_path / "b.npy", split="testing")


def test_the_limit_comes_with_its_fit(tmp_path: Path):
    found = fad(write(tmp_path / "a", vectors(300, 0)), write(tmp_path / "b", vectors(200, 1)), infinity=True)
    assert found["fad_infinity"]["distance"] < found["fad"]
    assert set(found["fad_infinity"]) == {"distance", "standard_error", "r_squared", "subsets"}
    assert found["fad_infinity"]["subsets"] == "15 of 20 to 200"
    with pytest.raises(UsageError, match="18 are needed. Embed more recordings"):
        fad(tmp_path / "a", write(tmp_path / "c", vectors(17, 1)), infinity=True)


def test_too_few_embeddings_are_said(tmp_path: Path):
    found = fad(write(tmp_path / "a", vectors(DIM, 0)), write(tmp_path / "b", vectors(DIM + 1, 1)))
    assert len(found["warnings"]) == 1
    assert "8 embeddings in 8 dimensions have no covariance of full rank" in found["warnings"][0]
    with pytest.raises(UsageError, match="1 embeddings have no covariance; embed more"):
        fad(tmp_path / "a", write(tmp_path / "c", vectors(1, 1)))


def test_statistics_as_fadtk_ships_them(tmp_path: Path):
    first, second = vectors(300, 0), vectors(200, 1)
    mean, covariance = first.astype(np.float64).mean(0), np.cov(first.astype(np.float64).T)
    names = {
        "clap-laion-music.mu": mean,
        "clap-laion-music.cov": covariance,
        "vggish.mu": mean,
        "vggish.cov": covariance,
    }
    np.savez(tmp_path / "fma.npz", **names)  # pyright: ignore[reportArgumentType]
    np.savez(tmp_path / "one.npz", mu=mean, cov=covariance, n=300)
    write(tmp_path / "b", second)
    expected = fad(write(tmp_path / "a", first), tmp_path / "b")["fad"]
    found = fad(tmp_path / "fma.npz", tmp_path / "b", model="clap-laion-music")
    assert found["fad"] == pytest.approx(expected, rel=1e-6)
    assert found["n_reference"] is None
    assert "does not say from how many" in found["warnings"][0]
    assert fad(tmp_path / "one.npz", tmp_path / "b")["n_reference"] == 300
    with pytest.raises(UsageError, match="of clap-laion-music, vggish; say with --model"):
        fad(tmp_path / "fma.npz", tmp_path / "b")
    with pytest.raises(UsageError, match="holds statistics only"):
        fad(tmp_path / "a", tmp_path / "one.npz", infinity=True)


def test_embeddings_in_a_npz_are_found_by_name(tmp_path: Path):
    rows = vectors(50, 0)
    np.savez(tmp_path / "a.npz", audio_embeddings=rows, text_embeddings=rows[:, ::-1])
    assert fad(tmp_path / "a.npz", tmp_path / "a.npz", column="audio_embeddings")["n_evaluated"] == 50


def test_sets_of_different_weights_are_refused(tmp_path: Path):
    write(tmp_path / "a", vectors(30, 0))
    write(tmp_path / "b", vectors(30, 0), SPEC | {"fingerprint": "def"})
    with pytest.raises(UsageError, match="embedded with different weights"):
        fad(tmp_path / "a", tmp_path / "b")


def test_different_settings_are_said(tmp_path: Path):
    write(tmp_path / "a", vectors(30, 0))
    other = {"window": 48_000, "settings": {"int16": False, "torch": "2.9"}, "encoder": "clap-htsat-unfused"}
    write(tmp_path / "b", vectors(30, 0), SPEC | other)
    warning = "the two sets were embedded differently: window is 480000 and 48000, int16 is True and False"
    assert fad(tmp_path / "a", tmp_path / "b")["warnings"] == [warning]


def test_other_dimensions_are_refused(tmp_path: Path):
    np.save(tmp_path / "b.npy", vectors(30, 0)[:, :4])
    with pytest.raises(UsageError, match="has 8 dimensions and .* 4"):
        fad(write(tmp_path / "a", vectors(30, 0)), tmp_path / "b.npy")


def test_bad_files_are_refused(tmp_path: Path):
    good = write(tmp_path / "a", vectors(30, 0))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("no numpy")
    (tmp_path / "text.npz").write_text("no numpy")
    np.save(tmp_path / "nan.npy", np.full((20, DIM), np.nan))
    np.savez(tmp_path / "half.npz", mu=np.zeros(3))
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), cov=np.zeros((3, 4)))
    np.savez(tmp_path / "none.npz", x=np.zeros(3))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, message in {
        "flat.npy": r"holds float64 \[3\]; embeddings are floats \[n, D\]",
        "text.npy": "cannot be read as a file of numpy",
        "text.npz": "cannot be read as a file of numpy",
        "pickle.npy": "cannot be read as a file of numpy",
        "missing.npy": "cannot be read as a file of numpy",
        "nan.npy": "an embedding is not finite",
        "half.npz": r"has no .*cov.*; give a file with both",
        "odd.npz": "do not belong together",
        "none.npz": "mu and cov of no model",
        "folder": "no finished shard set",
    }.items():
        with pytest.raises(UsageError, match=message):
            fad(good, tmp_path / name)
    with pytest.raises(UsageError, match="has no column clap_embeddings. Did you mean clap_embedding"):
        fad(good, good, column="clap_embeddings")
    with pytest.raises(UsageError, match="prompt is string, and no embedding"):
        fad(good, good, column="prompt")


def test_a_dry_run_compares_nothing(tmp_path: Path):
    write(tmp_path / "a", vectors(1, 0))
    settings = {"reference": tmp_path / "a", "evaluated": tmp_path / "a"}
    assert run_command("fad", settings, True, QuietConsole())[1]["column"] == "clap_embedding"
