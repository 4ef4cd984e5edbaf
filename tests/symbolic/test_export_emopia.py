from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_midi_command import CONSOLE, settings, write_songs

from audioprep.commands import export_emopia, midi
from audioprep.errors import UsageError
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import open_dataset
from audioprep.shards.tables import read_tables
from audioprep.symbolic.vocabulary import full_vocabulary


@pytest.fixture(scope="module", params=["none", "score"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emopia")
    write_songs(folder / "songs", songs=6, excerpts=2)
    (folder / "songs" / "long.mid").write_bytes(long_song())
    midi.run(settings(folder / "songs", folder / "out", key=request.param), CONSOLE)
    return folder / "out"


def long_song() -> bytes:
    import midi_files as m

    return m.midi(m.deltas_of([40 + n * 7 % 50 for n in range(700)]))


def export(shards: Path, dest: Path, **others) -> dict[str, Any]:
    return export_emopia.run(export_emopia.Settings.model_validate({"out": shards, "dest": dest} | others), CONSOLE)


def songs_of(shards: Path) -> dict[str, list[list[int | str]]]:
    """The values of every song's words."""
    dataset, found = open_dataset(shards), {}
    classes = list(full_vocabulary(dataset.encoders["midi_tokens"]["num_codebooks"] == 9).values())
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            for uri, words in zip(table.column("uri").to_pylist(), to_arrays(table.column("midi_tokens")), strict=True):
                found[Path(uri).stem] = [[values[id_] for values, id_ in zip(classes, row, strict=True)]
                                         for row in words]  # fmt: skip
    return found


def read(dest: Path) -> tuple[dict[str, np.ndarray], Any, dict[str, Any]]:
    """The arrays, the dictionary and the names. Only the tests unpickle, and what they have written."""
    with np.load(dest / "emopia_data.npz") as data:
        arrays = dict(data)
    return (
        arrays,
        pickle.loads((dest / "dictionary.pkl").read_bytes()),
        json.loads((dest / "emopia_fn2idx_map.json").read_text()),
    )


def test_the_arrays_as_upstream_compiles_them(shards: Path, tmp_path: Path) -> None:
    summary = export(shards, tmp_path)
    arrays, (to_word, to_event), names = read(tmp_path)
    songs = songs_of(shards)
    assert summary["songs"] == len(songs) == 13 and summary["truncated"] == 1
    assert {name: (array.shape[:2], array.dtype.str) for name, array in arrays.items()} == {
        "x": ((13, 1024), "<i8"), "y": ((13, 1024), "<i8"), "mask": ((13, 1024), "<f8"),
        "seq_len": ((13,), "<i8"), "num_groups": ((13,), "<i8"),
    }  # fmt: skip
    classes = list(to_word)
    assert arrays["x"].shape[2] == len(classes) == len(next(iter(songs.values()))[0])
    for name, values in to_event.items():
        assert to_word[name] == {value: id_ for id_, value in values.items()}
        assert {type(value) for value in values.values()} <= {int, str}
        if name != "type":
            assert list(values.values()) == sorted(
                values.values(), key=lambda value: (not isinstance(value, int), value)
            )
    end = [to_word[name]["EOS" if name == "type" else 0] for name in classes]
    assert (np.diff(arrays["seq_len"]) <= 0).all()
    for song, number in names["fn2idx"].items():
        assert names["idx2fn"][str(number)] == song
        ids = [[to_word[name][value] for name, value in zip(classes, word, strict=True)] for word in songs[song]]
        ids = ids[:1022] if len(ids) >= 1022 else ids
        steps = len(ids) - 1
        padding = [end] * (1024 - steps)
        assert arrays["seq_len"][number] == steps
        assert arrays["num_groups"][number] == -(-steps // 512)
        assert arrays["x"][number].tolist() == ids[:-1] + padding
        assert arrays["y"][number].tolist() == ids[1:] + padding
        assert arrays["mask"][number].tolist() == [1.0] * steps + [0.0] * (1024 - steps)
    with np.load(tmp_path / "emopia_data_idx.npz") as found:
        assert sorted(found) == ["cls_1_idx", "cls_2_idx", "cls_3_idx", "cls_4_idx"]
        for emotion in range(1, 5):
            expected = sorted(number for song, number in names["fn2idx"].items() if song.startswith(f"Q{emotion}"))
            assert found[f"cls_{emotion}_idx"].tolist() == expected


def test_the_seeds_names(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path, names="train")
    assert {path.name for path in tmp_path.glob("train*")} == {
        "train_data.npz", "train_dictionary.pkl", "train_idx.npz", "train_fn2idx_map.json",
    }  # fmt: skip


def test_copies_in_other_keys(shards: Path, tmp_path: Path) -> None:
    plain = export(shards, tmp_path / "plain")
    more = export(shards, tmp_path / "more", transpose=[2, -3], tempo=[0.9])
    assert more["songs"] == plain["songs"] * 6
    arrays, (to_word, to_event), names = read(tmp_path / "more")
    first, moved = (names["fn2idx"][f"Q1_00000000000_0{suffix}"] for suffix in ("", "-k+2"))
    place = list(to_word).index("pitch")

    def pitches(number: int) -> list[int]:
        values = (to_event["pitch"][id_] for id_ in arrays["x"][number][:, place])
        return [int(value.rpartition("_")[2]) for value in values if value]

    assert pitches(moved) == [pitch + 2 for pitch in pitches(first)]
    assert export(shards, tmp_path / "far", transpose=[70])["left_out"] == {"moved out of the pitches": 13}


def test_vocabularies(shards: Path, tmp_path: Path) -> None:
    with_key = open_dataset(shards).encoders["midi_tokens"]["num_codebooks"] == 9
    full = [len(values) for values in full_vocabulary(with_key).values()]
    assert list(export(shards, tmp_path / "full", vocabulary="full")["class_sizes"].values()) == full
    published = list(export(shards, tmp_path / "published", vocabulary="published")["class_sizes"].values())
    assert published == [56, 135, 18, 4 + with_key, 87, 18, 42, 5, 25][: len(full)]
    own = {name: list(values) for name, values in full_vocabulary(with_key).items()}
    own["pitch"] = [value for value in own["pitch"] if value == 0 or int(str(value).rpartition("_")[2]) < 78]
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert "pitch not in the vocabulary" in export(
        shards, tmp_path / "own", vocabulary=str(tmp_path / "own.json"), transpose=[1]
    )["left_out"]  # fmt: skip
    (tmp_path / "bad.json").write_text(json.dumps({"tempo": [0]}))
    for name in ("bad.json", "absent.json"):
        with pytest.raises(UsageError, match="--vocabulary"):
            export(shards, tmp_path / "bad", vocabulary=str(tmp_path / name))


def test_the_folder_is_not_mixed(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path / "a")
    with pytest.raises(UsageError, match="other settings"):
        export(shards, tmp_path / "a", names="train")
    export(shards, tmp_path / "a", names="train", overwrite=True)
    with pytest.raises(UsageError, match="no column of emopia-cp"):
        export(shards, tmp_path / "b", column="audio_tokens")


def unpickling(source: str) -> list[str]:
    """The calls in a module that would run what a pickle says."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        found
        for call in calls
        if (found := ast.unparse(call.func)) in ("pickle.load", "pickle.loads", "pickle.Unpickler")
    ]


def test_no_pickle_is_ever_read(read_sources: Callable[[], list[str]]) -> None:
    sources = read_sources()
    assert len(sources) > 100
    assert [found for source in sources for found in unpickling(source)] == []
    assert unpickling("import pickle\npickle.load(file)") == ["pickle.load"]


@pytest.fixture
def read_sources() -> Callable[[], list[str]]:
    import audioprep

    assert audioprep.__file__
    folder = Path(audioprep.__file__).parent
    return lambda: [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
