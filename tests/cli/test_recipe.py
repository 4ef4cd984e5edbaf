"""Recipes: checks with line numbers, variables, `--set`, and what a dry run says."""

import json
from pathlib import Path

import pytest
from cli_helpers import Cli

from audioprep.bundled import recipe_path
from audioprep.errors import UsageError
from audioprep.recipes.load import load_recipe

GOOD = """\
description: two stages
stages:
  - stage: tokenize
    source: ["${MUSIC}"]
    out: ${OUT:-shards}
    splits: {train: 0.9, test: 0.1}
  - stage: verify
    name: check
    out: shards
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSIC", "/music")
    monkeypatch.delenv("OUT", raising=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def test_variables_defaults_and_settings(recipe: Path):
    first, second = load_recipe(
        recipe, ["tokenize.workers=2", "tokenize.splits.test=0.2", "check.out=elsewhere"]
    ).stages
    assert first.source == ["/music"]
    assert (first.out, first.workers, first.codec) == (Path("shards"), 2, "mel-rvq")
    assert first.splits == {"train": 0.9, "test": 0.2}
    assert second.out == Path("elsewhere")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    out: shards", "    out: shards\n    ot: 1", r":10: stages.1.ot: no such setting. Did you mean out\?"),
        ("stage: verify", "stage: verifi", r":7: no stage is called verifi. Did you mean verify\?"),
        ("- stage: verify\n    name", "- name", r":7: a stage needs `stage: NAME`. There are: .*encode, "),
        ("train: 0.9", "train: much", r":6: stages.0.splits.train: Input should be a valid number"),
        ("${MUSIC}", "${NO_SUCH}", r":4: the environment variable NO_SUCH is not set. Set it, or write \$\{NO_SUCH:-"),
        ("name: check", "name: tokenize", r":8: a second stage is called tokenize; give it a `name` of its own"),
        ("stages:", "stages: [", r":\d+: not valid YAML"),
        ("stages:", "steps:", r":1: a recipe is a mapping with a list of `stages`"),
        ("    source: [\"${MUSIC}\"]\n", "", r":3: stages.0.source: Field required"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_with_its_line(old: str, new: str, message: str, recipe: Path):
    assert old in GOOD
    recipe.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tokenise.workers=2", r"--set tokenise.workers=2: the recipe has no stage tokenise. Did you mean tokenize\?"),
        ("tokenize.worker=2", r"stages.0.worker: no such setting. Did you mean workers\?"),
        ("tokenize.workers", r"write it like --set tokenize.workers=2"),
        ("tokenize.codec.x=2", r"--set tokenize.codec.x=2"),
    ],
)
def test_a_wrong_set_is_shown(setting: str, message: str, recipe: Path):
    with pytest.raises(UsageError, match=message):
        load_recipe(recipe, ["tokenize.codec=mel-rvq", setting])


def test_the_schema_knows_every_stage(cli: Cli):
    schema = json.loads(cli("schema").out)
    stages = schema["$defs"]
    known = {"TokenizeStage", "TrainStage", "VerifyStage", "Fit-mel-rvqStage", "Fit-muq-vqStage", "InspectStage"}
    assert known <= stages.keys()
    assert stages["TokenizeStage"]["properties"]["workers"]["description"]


def test_the_bundled_recipe_is_valid_and_plans(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe_path("demo")).stages
    result = cli("run", "demo", "--dry-run", "--json", "--quiet")
    assert result.code == 0
    assert result.json["tokenize"]["inputs"] == 16
    assert list(tmp_path.iterdir()) == []


def test_a_plan_goes_on_where_a_stage_needs_what_another_makes(cli: Cli, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "stages:\n  - {stage: fit-mel-rvq, source: ['${AUDIOPREP_SAMPLES}'], out: '~/mine.safetensors'}\n"
        "  - {stage: tokenize, source: ['${AUDIOPREP_SAMPLES}'], out: '~/out', weights: '~/mine.safetensors'}\n"
    )
    stages = cli("run", path, "--dry-run", "--json", "--quiet").json
    assert stages["fit-mel-rvq"]["weights"] == str(Path.home() / "mine.safetensors")
    assert "needs what a stage above makes" in stages["tokenize"]["not_yet"]


def test_an_unknown_recipe(cli: Cli):
    result = cli("run", "dmeo")
    assert result.code == 1 and "demo" in result.err


def test_a_recipe_runs_and_a_failed_input_shows_in_the_exit_code(cli: Cli, tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/broken.wav").write_text("no audio")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"stages:\n  - {{stage: tokenize, source: ['{tmp_path}/corpus'], out: '{tmp_path}/out'}}\n"
        f"  - {{stage: verify, out: '{tmp_path}/out'}}\n"
    )
    result = cli("run", path, "--quiet")
    assert result.code == 3
    assert "[1/2] tokenize" in result.out and "[2/2] verify" in result.out
