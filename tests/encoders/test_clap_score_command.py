"""From sound files to `audioprep clap-score` and `audioprep fad`, through the commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from clap_helpers import RATE, sound, write_clap

from audioprep.cli.console import QuietConsole
from audioprep.cli.recipe import run_command
from audioprep.encoders.clap import Settings, load
from audioprep.errors import UsageError
from audioprep.shards.columns import plain_table, to_arrays, to_vectors
from audioprep.stages.encode import encode_samples, mean_direction

PROMPTS = {"rain.wav": "rain on a roof", "piano.wav": "a slow piano", "hum.wav": None, "drums.wav": "drums"}
SECONDS = {"rain.wav": 3.0, "piano.wav": 11.0, "hum.wav": 1.0, "drums.wav": 10.0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    write_clap(folder)
    return folder


@pytest.fixture(scope="module")
def shards(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `audioprep encode` makes of four files, as one vector each and as all windows."""
    folder = tmp_path_factory.mktemp("music")
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        soundfile.write(folder / name, sound(seconds, seed), RATE, subtype="FLOAT")
        if PROMPTS[name]:
            (folder / name).with_suffix(".json").write_text(json.dumps({"prompt": PROMPTS[name]}))
    choices = [
        {"encoder": "clap", "weights": str(weights), "column": f"clap_{pooling}", "settings": {"pooling": pooling}}
        for pooling in ("mean", "all")
    ]
    out = folder.parent / f"{folder.name}-shards"
    options = {"source": [str(folder)], "out": out, "encoders": choices, "device": "cpu", "workers": 1}
    code, summary = run_command("encode", options, False, QuietConsole())
    assert (code, summary["failed"]) == (0, 0)
    return out


def score(shards: Path, **options: Any) -> dict[str, Any]:
    settings = {"out": shards, "column": "clap_mean", "device": "cpu"} | options
    return run_command("clap-score", settings, False, QuietConsole())[1]


def test_the_columns_hold_what_the_encoder_gives(shards: Path, weights: Path):
    table = plain_table(pq.read_table(shards / "data" / "train-00000.parquet"))
    names = [Path(uri).name for uri in table["uri"].to_pylist()]
    encoder = load(Settings(weights=str(weights)))
    means, windows = to_vectors(table["clap_mean"]), to_arrays(table["clap_all"])
    for name, mean, rows in zip(names, means, windows, strict=True):
        expected = encode_samples(encoder, sound(SECONDS[name], list(SECONDS).index(name))[None])
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(mean, mean_direction(expected))
    assert [len(windows[names.index(name)]) for name in SECONDS] == [1, 2, 1, 1]


def test_the_score_is_the_mean_cosine_of_what_has_a_text(shards: Path, weights: Path):
    table = pq.read_table(shards / "data" / "train-00000.parquet").to_pylist()
    encoder = load(Settings(weights=str(weights)))
    cosines = [
        float(np.float64(row["clap_mean"]) @ encoder.embed_text([row["prompt"]])[0]) for row in table if row["prompt"]
    ]
    found = score(shards)
    assert found["clap_score"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found["standard_deviation"] == pytest.approx(np.std(cosines, ddof=1), abs=1e-6)
    assert (found["n"], found["without_text"], found["encoder"]) == (3, 1, "clap")
    assert score(shards, column="clap_all") == pytest.approx(found, abs=1e-6)


def test_the_distance_of_a_set_from_itself(shards: Path):
    settings = {"reference": shards, "evaluated": shards, "column": "clap_mean"}
    found = run_command("fad", settings, False, QuietConsole())[1]
    assert found["fad"] < 1e-6
    assert found["n_reference"] == 4
    assert "4 embeddings in 512 dimensions" in found["warnings"][0]


def test_other_weights_are_refused(shards: Path, weights: Path, tmp_path: Path):
    write_clap(tmp_path, seed=1)
    with pytest.raises(UsageError, match="was made with other weights"):
        score(shards, weights=str(tmp_path))
    assert score(shards, weights=str(weights)) == score(shards)


def test_columns_that_are_not_there_are_named(shards: Path):
    with pytest.raises(UsageError, match="has no column clap_meen. Did you mean clap_mean"):
        score(shards, column="clap_meen")
    with pytest.raises(UsageError, match="has no column promt. Did you mean prompt"):
        score(shards, text_column="promt")
    with pytest.raises(UsageError, match="no item has a text in lyrics"):
        score(shards, text_column="lyrics")


def test_a_dry_run_compares_nothing(shards: Path):
    settings = {"out": shards, "column": "clap_mean", "device": "cpu"}
    found = run_command("clap-score", settings, True, QuietConsole())[1]
    assert found == {"out": str(shards), "rows": 4, "text_column": "prompt", "encoder": "clap"}
