from __future__ import annotations

import json
from pathlib import Path

import midi_files as m
import numpy as np
import pyarrow.parquet as pq
import pytest
from midi_cli import run_cli

from audioprep.cli.console import QuietConsole
from audioprep.commands import fit_midi_bpe, inspect, midi, retry, verify
from audioprep.corpus.entry import Entry
from audioprep.engine.run import recorded_stages
from audioprep.errors import UsageError
from audioprep.shards.columns import plain_table, to_arrays
from audioprep.shards.dataset import open_dataset
from audioprep.shards.loader import ShardLoader
from audioprep.shards.tables import read_tables
from audioprep.stages.base import Failed, Kept, Resources
from audioprep.symbolic.read import read_score

CONSOLE = QuietConsole()


def write_songs(folder: Path, songs: int = 12, excerpts: int = 3) -> None:
    """EMOPIA's names; every excerpt is another piece of its song."""
    folder.mkdir(parents=True, exist_ok=True)
    for song in range(songs):
        for excerpt in range(excerpts):
            pitches = [48 + (song * 5 + excerpt * 7 + n * n) % 30 for n in range(10 + song + excerpt)]
            data = m.midi([(0, m.tempo(80 + song)), (0, m.key(song % 5))], m.deltas_of(pitches))
            (folder / f"Q{song % 4 + 1}_{song:011d}_{excerpt}.mid").write_bytes(data)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    write_songs(folder)
    (folder / "broken.mid").write_bytes(b"MThd")
    (folder / "notes.txt").write_text("no score")
    return folder


def settings(source: Path, out: Path, **others) -> midi.Settings:
    wanted = {"source": [str(source)], "out": out, "workers": 1, "tokenizer": "emopia-cp"}
    return midi.Settings.model_validate(wanted | others)


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_a_shard_set_of_scores(songs: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    wanted = settings(songs, out, format=format, splits={"train": 0.5, "test": 0.5}, key="score")
    summary = midi.run(wanted, CONSOLE)
    assert (summary["inputs"], summary["rows"], summary["failed"]) == (37, 36, 1)
    assert summary["meters"] == {"none": 36}
    assert verify.run(verify.Settings.model_validate({"out": out}), CONSOLE)["problems"] == []
    codebooks = inspect.run(inspect.Settings.model_validate({"out": out}), CONSOLE)["codebooks"]["midi_tokens"]
    assert len(codebooks) == 9
    failures = pq.read_table(out / "failures.parquet").to_pylist()
    assert [(failure["stage"], failure["error"]) for failure in failures] == [("midi_tokens", "corrupt")]

    dataset = open_dataset(out)
    splits: dict[str, set[str]] = {}
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            splits.setdefault(shard["split"], set()).update(table.column("song").to_pylist())
            for row in table.select(["uri", "emotion", "key"]).to_pylist():
                assert Path(row["uri"]).name[1] == str(row["emotion"])
                assert row["key"] in ("C", "G", "D", "A", "E")
    assert splits["train"] and splits["test"] and not splits["train"] & splits["test"]

    batch = next(iter(ShardLoader(out, split="train", batch_size=2, shuffle=False)))
    assert batch["midi_tokens"].shape[2] == 9
    assert midi.plan(wanted, CONSOLE)["new_inputs"] == 0


def test_what_has_failed_is_tried_again(tmp_path: Path) -> None:
    source, out = tmp_path / "songs", tmp_path / "out"
    write_songs(source, songs=2, excerpts=1)
    bad = min(source.iterdir())
    good = bad.read_bytes()
    bad.write_bytes(b"MThd")
    assert midi.run(settings(source, out, tokenizer="remi"), CONSOLE)["failed"] == 1
    bad.write_bytes(good)
    again = retry.run(retry.Settings(out=out, workers=1, device="cpu", isolated=False), CONSOLE)
    assert (again["failed_before"], again["failed"], again["rows"]) == (1, 0, 2)


@pytest.mark.parametrize("others", [{"tokenizer": "miditok:TSD"}, {"tokenizer": "emopia-cp", "key": "score"}])
def test_a_stage_is_made_again_from_its_origin(tmp_path: Path, others: dict) -> None:
    wanted = settings(tmp_path, tmp_path, **others)
    stage = midi._stage(wanted)
    (tmp_path / "tokenizer.json").write_text(stage.saved)
    recorded = {"text": {"origin": {}}, stage.name: {"origin": stage.origin}}
    assert midi.remade_job(wanted, recorded).stages[1] == stage


def test_the_command_and_its_exit_codes(songs: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    arguments = ["midi", songs, "--out", out, "--tokenizer", "emopia-cp", "--workers", "1", "--json", "-q"]
    assert run_cli(monkeypatch, arguments) == 3
    assert json.loads(capsys.readouterr().out)["rows"] == 36
    before = (out / "data" / "train-00000.parquet").read_bytes()
    write_songs(songs, songs=13)
    assert run_cli(monkeypatch, arguments) == 3  # new files are added
    assert json.loads(capsys.readouterr().out)["rows"] == 39
    assert run_cli(monkeypatch, [*arguments, "--key", "score"]) == 1
    assert "was made with other settings" in capsys.readouterr().err
    assert run_cli(monkeypatch, [*arguments, "--overwrite"]) == 3
    capsys.readouterr()
    assert len(before) > 0
    assert run_cli(monkeypatch, ["encode", "--out", out, "--encoder", "mel-rvq", "-q"]) == 1


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"tokenizer": "remy"}, "MidiTok has no remy"),
        ({"tokenizer": "miditok:REMMI"}, "Did you mean REMI"),
        ({"tokenizer": "remi", "chords": "none"}, "--chords"),
        ({"tokenizer": "remi", "meter": "convert"}, "--meter convert"),
        ({"tokenizer": "remi", "tokenizer_settings": {"use_chord": True}}, "Did you mean use_chords"),
        ({"tokenizer_settings": {"use_chords": True}}, "emopia-cp has options"),
        ({"column": "uri"}, "column uri"),
        ({"config": Path("absent.json"), "tokenizer": "remi"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_be(songs: Path, tmp_path: Path, others: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        midi.plan(settings(songs, tmp_path / "out", **others), CONSOLE)


def test_a_folder_without_scores(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    with pytest.raises(UsageError, match="no scores or MIDI files found"):
        midi.run(settings(tmp_path / "songs", tmp_path / "out"), CONSOLE)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("remi", {}),
        ("cp", {}),
        ("miditok:Octuple", {}),
        ("miditok:TSD", {"use_chords": True}),  # of which each track is a sequence of its own
    ],
)
def test_ids_are_miditoks_own(songs: Path, tmp_path: Path, name: str, others: dict) -> None:
    """In this process; the next test runs the engine."""
    import miditok
    from symusic import Score

    stage = midi._stage(settings(songs, tmp_path / "out", tokenizer=name, tokenizer_settings=others))
    saved = tmp_path / "tokenizer.json"
    saved.write_text(stage.saved)
    kind = {"remi": "REMI", "cp": "CPWord"}.get(name, name.removeprefix("miditok:"))
    theirs = getattr(miditok, kind)(params=saved)  # as MidiTok's users load it
    entries = [Entry(str(path)) for path in sorted(songs.glob("Q*.mid"))[:6]]
    for _, outcome in type(stage).run([stage], entries, Resources()):
        assert isinstance(outcome, Kept)
        found = theirs(Score(entries[outcome.row].uri))
        sequences = found if isinstance(found, list) else [found]
        expected = [np.array(sequence.ids).reshape(len(sequence.ids), -1) for sequence in sequences]
        assert (outcome.columns["midi_tokens"] == np.concatenate(expected)).all()
        if isinstance(found, list):
            assert outcome.columns["track_frames"].ravel().tolist() == [len(ids) for ids in expected]


def test_a_vocabulary_does_not_grow_under_way(tmp_path: Path) -> None:
    """MidiTok's own Octuple does, where a song has more than 60 bars."""
    path = tmp_path / "long.mid"
    path.write_bytes(m.scale([60 + n % 12 for n in range(400)]))
    for bars, expected in ((60, Failed), (120, Kept)):
        wanted = {"tokenizer": "miditok:Octuple", "tokenizer_settings": {"max_bar_embedding": bars}}
        stage = midi._stage(settings(tmp_path, tmp_path / "out", **wanted))
        ((_, outcome),) = type(stage).run([stage], [Entry(str(path))], Resources())
        assert isinstance(outcome, expected)


@pytest.mark.filterwarnings("ignore")
def test_a_trained_tokenizer_end_to_end(songs: Path, tmp_path: Path) -> None:
    import miditok
    from symusic import Score

    trained, out = tmp_path / "bpe.json", tmp_path / "out"
    own = {"use_programs": False, "num_velocities": 8, "one_token_stream_for_programs": True}
    wanted = fit_midi_bpe.Settings.model_validate(
        {"source": [str(songs)], "out": trained, "vocab_size": 500, "tokenizer_settings": own}
    )
    summary = fit_midi_bpe.run(wanted, CONSOLE)
    assert summary["scores"] == 36 and summary["failed"] == 1 and summary["vocab_size"] == 500
    assert fit_midi_bpe.run(wanted, CONSOLE)["already_there"]

    midi.run(settings(songs, out, tokenizer="remi", config=trained), CONSOLE)
    theirs = miditok.REMI(params=out / "tokenizer.json")
    assert theirs.is_trained
    assert verify.run(verify.Settings.model_validate({"out": out}), CONSOLE)["problems"] == []
    table = plain_table(pq.read_table(next((out / "data").glob("*.parquet"))))
    for uri, tokens in list(zip(table.column("uri").to_pylist(), to_arrays(table.column("midi_tokens")), strict=True))[
        ::9
    ]:
        found = theirs(Score(uri))
        ids = [id_ for track in (found if isinstance(found, list) else [found]) for id_ in track.ids]
        assert tokens.ravel().tolist() == ids
    assert "tokenizer" in recorded_stages(out)["midi_tokens"]["origin"]
    with pytest.raises(UsageError, match="none can be trained"):
        fit_midi_bpe.run(wanted.model_copy(update={"tokenizer": "cp", "out": tmp_path / "cp.json"}), CONSOLE)


def test_scores_of_text_are_tokenized_too(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.krn").write_text("**kern\n*M4/4\n*k[f#]\n4c\n4d\n2e\n==\n*-\n")
    stage = midi._stage(settings(tmp_path / "songs", tmp_path / "out"))
    ((_, outcome),) = type(stage).run([stage], [Entry(str(tmp_path / "songs" / "a.krn"))], Resources())
    assert isinstance(outcome, Kept) and outcome.columns["notes"] == 3
    assert read_score((tmp_path / "songs" / "a.krn").read_bytes(), "a.krn").note_num() == 3
