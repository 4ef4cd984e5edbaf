from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from song_sets import make_song, write_song_set
from song_traps import BACKEND, TRAPS, audio_folder, index_rows, table_rows, token_file, write_index, write_table

from audioprep.commands import verify
from audioprep.export.simpletuner import Options, SimpleTunerExport
from audioprep.export.simpletuner_check import check
from audioprep.export.simpletuner_rows import Cutting


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three layouts of four songs, one of them an instrumental."""
    root = tmp_path_factory.mktemp("songs")
    songs = [make_song(number, 100 + 40 * number, **({"lyrics": None} if number == 2 else {})) for number in range(4)]
    out = write_song_set(root / "out", [songs[:3], songs[3:]])
    for layout in ("folder", "inline", "jsonl"):
        SimpleTunerExport(out, root / layout, Options(layout, Cutting(ending=True))).run(False, lambda *_: None)
    return root


def moved(exports: Path, layout: str, to: Path) -> Path:
    """A copy of an export, with its paths mended."""
    folder = shutil.copytree(exports / layout, to / layout)
    path = folder / BACKEND
    path.write_text(path.read_text().replace(str(exports), str(to)))
    return folder


@pytest.mark.parametrize("layout", ["folder", "inline", "jsonl"])
def test_nothing_is_wrong(exports: Path, layout: str):
    assert check(exports / layout) == []
    assert check(exports / layout, batch_size=1) == []


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_is_refused_by_name(exports: Path, tmp_path: Path, name: str):
    trap = TRAPS[name]
    folder = moved(exports, trap.layout, tmp_path)
    trap.damage(folder)
    problems = check(folder)
    assert [problem for problem in problems if re.search(trap.message, problem)], problems


def test_one_problem_names_all_rows_that_have_it(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    write_table(folder, [row | {"tags": " "} for row in table_rows(folder)])
    ids = [row["id"] for row in table_rows(folder)]
    names = ", ".join(f"row {number} ({id_})" for number, id_ in enumerate(ids))
    assert check(folder) == [f"{names}: has no tags; the model is conditioned on them, so give it some"]


def test_other_forms_that_are_right(exports: Path, tmp_path: Path):
    """Either orientation, .npz, .pt, absolute paths, a prompt in place of tags, more columns, and audio beside it."""
    import torch

    folder = moved(exports, "folder", tmp_path)
    rows = table_rows(folder)
    files = [folder / row["audio_tokens_path"] for row in rows]
    np.save(files[0], np.load(files[0]).T)
    np.savez(files[1].with_suffix(".npz"), tokens=np.load(files[1]).astype(np.uint16))
    torch.save(torch.from_numpy(np.load(files[2])).long(), files[2].with_suffix(".pt"))
    for row, path in zip(rows, [files[0], files[1].with_suffix(".npz"), files[2].with_suffix(".pt")], strict=False):
        row["audio_tokens_path"] = str(path)
    rows[3]["tags"] = None
    write_table(folder, [row | {"prompt": "piano", "bpm": 120} for row in rows])
    for name in ("0.wav", "metadata.jsonl"):
        (folder / name).touch()
    assert check(folder) == []


def test_a_folder_of_audio_with_its_metadata(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    audio_folder(folder, "metadata.jsonl")
    assert check(folder) == []


def test_a_pickle_is_not_opened(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    path = token_file(folder).with_suffix(".pt")
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    rows = table_rows(folder)
    rows[1]["audio_tokens_path"] = str(path)
    write_table(folder, rows)
    assert "cannot be read as one array of numbers" in check(folder)[0]


def test_what_simpletuner_has_kept_under_an_id(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    id_ = json.loads((folder / BACKEND).read_text())[0]["id"]
    kept = {
        f"{number}.wav": {name: row[name] for name in ("tags", "lyrics", "audio_tokens_path")}
        for number, row in enumerate(table_rows(folder))
    }
    path = folder / f"aspect_ratio_bucket_metadata_{id_}.json"
    path.write_text(json.dumps(kept))
    assert check(folder) == []
    kept["1.wav"]["tags"] = "old,tags"
    path.write_text(json.dumps(kept))
    assert re.fullmatch(rf"row 1 \(\w+\): is otherwise in what .* under the id {id_} .*", check(folder)[0])


def test_an_export_that_is_not_finished(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    (folder / "details.json").unlink()
    assert check(folder) == [f"{folder}: the export is not finished; run the same command again, to its end"]
    (folder / BACKEND).unlink()
    assert f"{folder / BACKEND}: is not there" in check(folder)[0]


def test_repeats_fill_a_bucket(exports: Path, tmp_path: Path):
    folder = moved(exports, "folder", tmp_path)
    assert len(check(folder, batch_size=2)) == 4
    path = folder / BACKEND
    path.write_text(json.dumps([json.loads(path.read_text())[0] | {"repeats": 1}]))
    assert check(folder, batch_size=2) == []


def test_a_data_set_for_the_hub_is_checked_where_it_lies(exports: Path, tmp_path: Path):
    folder = moved(exports, "inline", tmp_path)
    path = folder / BACKEND
    path.write_text(json.dumps([json.loads(path.read_text())[0] | {"dataset_name": "me/my-songs"}]))
    assert check(folder) == []
    write_table(folder, [row | {"tags": "7"} for row in table_rows(folder)])
    assert "has a number for tags" in check(folder)[0]


def test_an_index_without_suffixes(exports: Path, tmp_path: Path):
    folder = moved(exports, "jsonl", tmp_path)
    rows = index_rows(folder)
    entry = json.loads((folder / BACKEND).read_text())[0]
    entry["parquet"]["identifier_includes_extension"] = False
    (folder / BACKEND).write_text(json.dumps([entry]))
    assert "has no audio file under instance_data_dir" in check(folder)[0]
    write_index(folder, [row | {"filename": Path(row["filename"]).stem} for row in rows])
    assert check(folder) == []


def test_on_the_command_line(exports: Path, tmp_path: Path):
    from audioprep.cli.console import QuietConsole

    settings = verify.Settings(out=exports / "folder", target="simpletuner", batch_size=3)  # pyright: ignore
    problems = verify.run(settings, QuietConsole())["problems"]
    assert len(problems) == 4 and all("a step takes 3" in problem for problem in problems)
