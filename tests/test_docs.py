"""The documentation agrees with the code: examples, links, paths, options and tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from audioprep.audio import AUDIO_SUFFIXES
from audioprep.corpus.entry import ALIASES
from audioprep.corpus.manifests import PATH_COLUMNS
from audioprep.errors import Reason
from audioprep.recipes.load import load_recipe
from audioprep.shards.columns import ITEM_COLUMNS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
# Paths of this checkout, and not of an example such as `data/train-00000.parquet`.
TOP = "audioprep|bench|docs|pipelines|tests|trainers"
EXAMPLES = {"trainers/code_histogram.py"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks in a language, each with the line that it begins at."""
    text = TEXT[page.name]
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", TEXT[page.name], flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them of plain words."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_page_of_the_command_line_is_up_to_date():
    command = [sys.executable, "-m", "typer", "audioprep.cli.app", "utils", "docs", "--name", "audioprep"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert made.strip() == TEXT["cli.md"].strip(), "make it anew: see docs/contributing.md"


@each_page
def test_python_examples_compile(page: Path):
    for line, code in blocks(page, "python"):
        compile("\n" * line + code, str(page), "exec")


@each_page
def test_recipes_load(page: Path, tmp_path: Path):
    for _, code in blocks(page, "yaml"):
        if "stages" in (yaml.safe_load(code) or {}):
            path = tmp_path / "recipe.yaml"
            path.write_text(code)
            load_recipe(path)


@each_page
def test_relative_links_lead_somewhere(page: Path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose(page)):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}#{anchor}"


@each_page
def test_named_paths_exist(page: Path):
    for path in re.findall(rf"`((?:{TOP}|\.ci)/[\w./-]*)`", prose(page)):
        assert path in EXAMPLES or (ROOT / path).exists(), f"{page.name}: {path}"
    for path in re.findall(rf"(?<![\w/])((?:{TOP})/[\w/-]+\.(?:py|md|yaml))\b", TEXT[page.name]):
        assert path in EXAMPLES or (ROOT / path).exists(), f"{page.name}: {path}"


@each_page
def test_no_path_of_a_real_machine(page: Path):
    assert not re.search(r"(?<![\w.])/(?:tmp|work|home|root|Users)/", TEXT[page.name])


@each_page
def test_commands_and_options_exist(page: Path):
    sections = dict(re.findall(r"^##+ `audioprep ([^`]+)`\n(.*?)(?=^##|\Z)", TEXT["cli.md"], re.DOTALL | re.MULTILINE))
    for _, code in (*blocks(page, "sh"), *blocks(page, "console")):
        for line in re.findall(r"^(?:\$ )?(?:torchrun .*-m )?audioprep (.+)$", code, re.MULTILINE):
            words = line.partition("#")[0].split()
            command = " ".join(words[:2]) if words[0] in ("fit", "export") else words[0]
            assert command in sections or page.name == "cli.md", f"{page.name}: {line}"
            for option in (word for word in words if word.startswith("--")):
                known = re.search(rf"(?<![\w-]){option}(?![\w-])", sections[command])
                assert known, f"{page.name}: {line}: {option}"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("audio.md", sorted(Reason)),
        ("audio.md", sorted(AUDIO_SUFFIXES)),
        ("sources.md", [*PATH_COLUMNS, *ALIASES, *ALIASES.values()]),
        ("shards.md", ITEM_COLUMNS),
    ],
    ids=["reasons", "suffixes", "manifests", "columns"],
)
def test_tables_are_complete(page: str, names: list[str]):
    assert [name for name in names if f"`{name}`" not in TEXT[page]] == []


def test_the_trainers_settings_are_complete():
    files = [ROOT / "audioprep/training.py", *(ROOT / "trainers").glob("*.py")]
    settings = [
        name for file in files for name in re.findall(r"^    (\w+): .* = Field\(", file.read_text(), re.MULTILINE)
    ]
    assert len(settings) > 20
    known = {name.replace("-", "_") for name in re.findall(r"`(?:--)?([\w-]+)`", TEXT["trainers.md"])}
    assert [name for name in settings if name not in known] == []


def test_every_benchmark_has_its_row():
    benchmarks = {f"bench/{path.name}" for path in (ROOT / "bench").glob("*.py")} - {
        "bench/encodec_plugin.py",
        "bench/emopia_upstream.py",
    }
    assert set(re.findall(r"^\| `(bench/\w+\.py)`", TEXT["performance.md"], re.MULTILINE)) == benchmarks


def test_every_page_is_in_the_menu():
    # The menu alone: mkdocs.yml may name Python objects that a safe loader refuses.
    menu = re.findall(r"^  - .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(menu) == sorted(page.name for page in PAGES[1:])
