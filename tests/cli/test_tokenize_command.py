"""`audioprep tokenize` on a folder with everything in it: all formats, all kinds of broken inputs."""

import os
import signal
import struct
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from audio_helpers import VARIANTS, music, write, write_wav
from cli_helpers import Cli, Result, audioprep, failures, rows, start

from audioprep.samples import sample_folder


def make_broken(folder: Path) -> dict[str, str]:
    """Writes inputs that cannot be used: their names, and the reason each has to be given."""
    folder.mkdir()
    good = write_wav(folder / "good.wav", music())
    whole = good.read_bytes()
    (folder / "empty.wav").touch()
    (folder / "not-audio.mp3").write_text("this is a text, whatever its name says\n" * 50)
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "no-samples.wav").write_bytes(whole[:40] + struct.pack("<I", 0))
    lying = bytearray(whole)
    lying[40:44] = struct.pack("<I", len(whole) * 10)
    (folder / "lying.wav").write_bytes(lying)
    samples = music()
    samples[0, 1000] = np.nan
    write_wav(folder / "nan.wav", samples, subtype="FLOAT")
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    copyfile(good, folder / "bad-lyrics.wav")
    (folder / "bad-lyrics.json").write_text("{not json")
    good.unlink()
    return {
        "empty.wav": "empty", "not-audio.mp3": "not-audio", "truncated.wav": "truncated",
        "no-samples.wav": "no-samples", "lying.wav": "truncated",
        "nan.wav": "non-finite", "pipe.wav": "not-a-file", "folder.wav": "not-a-file",
        "loop.wav": "unreadable", "bad-lyrics.wav": "corrupt",
    }  # fmt: skip


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, dict[str, str]]:
    """The command's result, its output folder, and the expected failures."""
    folder = tmp_path_factory.mktemp("everything")
    for name in VARIANTS:
        write(name, folder)
    (folder / "wav-16.txt").write_text("sweep,test")
    (folder / "wav-16.lyrics").write_text("[Verse]\nla さくら")
    copyfile(folder / "flac-16.flac", folder / "flac-named.mp3")  # a wrong extension is no fault
    expected = make_broken(folder / "broken")
    manifest = folder / "vanished.csv"
    manifest.write_text("path\ngone.wav\n")
    expected["gone.wav"] = "not-found"
    out = folder / "out"
    result = audioprep("tokenize", folder, manifest, "--out", out, "--workers", "2", "--json", "--quiet")
    return result, out, expected


def test_every_input_is_a_row_or_a_failure(everything: tuple[Result, Path, dict[str, str]]):
    result, out, expected = everything
    assert result.code == 3, result.err
    summary = result.json
    assert summary["inputs"] == summary["rows"] + summary["failed"] == len(VARIANTS) + 1 + len(expected)
    assert set(rows(out)) == {f"{n}.{v.suffix}" for n, v in VARIANTS.items()} | {"flac-named.mp3"}


def test_each_failure_has_its_reason_and_a_remedy(everything: tuple[Result, Path, dict[str, str]]):
    _, out, expected = everything
    found = failures(out)
    assert {name: row["error"] for name, row in found.items()} == expected
    assert {name: row["stage"] for name, row in found.items() if row["stage"] != "audio_tokens"} == {
        "bad-lyrics.wav": "text"
    }
    assert all(len(row["message"]) > 20 for row in found.values())


def test_lossless_variants_have_identical_tokens(everything: tuple[Result, Path, dict[str, str]]):
    items = rows(everything[1])
    lossless = {f"{name}.{v.suffix}": items[f"{name}.{v.suffix}"] for name, v in VARIANTS.items() if v.error == 0.0}
    assert len(lossless) >= 20
    expected = items["wav-16.wav"]["audio_tokens"]
    assert len(expected) == 35 and len(np.unique(expected)) > 20
    assert {name for name, item in lossless.items() if item["audio_tokens"] != expected} == set()
    assert items["flac-named.mp3"]["audio_tokens"] == expected


def test_text_beside_a_file_becomes_columns(everything: tuple[Result, Path, dict[str, str]]):
    items = rows(everything[1])
    assert (items["wav-16.wav"]["tags"], items["wav-16.wav"]["lyrics"]) == ("sweep,test", "[Verse]\nla さくら")
    assert (items["flac-16.flac"]["tags"], items["flac-16.flac"]["lyrics"]) == (None, None)


def test_the_same_command_again_does_nothing(everything: tuple[Result, Path, dict[str, str]], cli: Cli):
    result, out, _ = everything
    folder = out.parent
    plan = cli("tokenize", folder, folder / "vanished.csv", "--out", out, "--dry-run", "--json", "--quiet")
    assert plan.code == 0
    assert plan.json["earlier_parts_done"] == plan.json["earlier_parts"] > 0 == plan.json["new_inputs"]
    again = cli("tokenize", folder, folder / "vanished.csv", "--out", out, "--json", "--quiet")
    assert again.code == result.code
    of_the_run = {"encoder_busy", "bottleneck", "inputs_per_worker_second"}
    assert again.json == {name: value for name, value in result.json.items() if name not in of_the_run}


def test_verify_and_inspect(everything: tuple[Result, Path, dict[str, str]], cli: Cli, tmp_path: Path):
    _, out, expected = everything
    verified = cli("verify", out, "--json", "--quiet")
    assert (verified.code, verified.json["problems"]) == (0, [])
    pytest.importorskip("matplotlib")
    inspected = cli("inspect", out, "--plot", tmp_path / "plot.png", "--json", "--quiet")
    assert inspected.code == 0
    assert sum(inspected.json["failures"].values()) == len(expected)
    assert inspected.json["exact_copies"] == 1
    ((first, *_),) = inspected.json["codebooks"].values()
    assert 0 < first["used"] <= 1 < first["perplexity"] <= 256
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_ctrl_c_and_resume(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(12):
        write_wav(corpus / f"{number}.wav", music(400_000)[:, number * 100 :])
    arguments = ("tokenize", corpus, "--out", tmp_path / "out", "--workers", "1", "--quiet", "--json")
    process = start(*arguments, "--isolated")  # slow enough to be interrupted
    done = tmp_path / "out/.audioprep/columns"
    while len(list(done.glob("audio_tokens-*/*.json"))) < 2:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "audioprep: interrupted; the same command goes on from what is done\n"
    before = {path: path.stat().st_mtime_ns for path in done.glob("audio_tokens-*/*.parquet")}
    assert 2 <= len(before) < 12
    assert audioprep(*arguments).json["rows"] == 12
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenize", "/no/such/folder"], "/no/such/folder: no such file or folder"),
        (["tokenize", "SAMPLES", "--codec", "mel_rvq"], "no encoder is called mel_rvq. Did you mean mel-rvq?"),
        (["tokenize", "SAMPLES", "--format", "parkett"], "--format parkett: there is parquet, webdataset. Did you"),
        (["tokenize", "SAMPLES", "--set", "bands=3"], "mel-rvq: setting bands"),
        (["tokenize", "SAMPLES", "--device", "gpu"], "device gpu: there is auto, cpu, cuda and cuda:N"),
        (["tokenize", "SAMPLES", "--num-codebooks", "9"], "has 4 codebooks, and num_codebooks is 9"),
        (["tokenize", "SAMPLES", "--weights", "/no/such.safetensors"], "/no/such.safetensors: cannot be read"),
        (["tokenize", "SAMPLES", "--splits", "train=0.5,test=0.6"], "splits"),
        (["tokenize", "SAMPLES", "--splits", "train"], "--splits train: write it like train=0."),
        (["tokenize", "SAMPLES", "--worker", "2"], "No such option: --worker (Possible options: --workers)"),
        (["tokenize", "SAMPLES", "--workers", "-1"], "Invalid value for '--workers': Input should be"),
        (["tokenise", "SAMPLES"], "Did you mean 'tokenize'"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_clear_error(arguments: list[str], message: str, cli: Cli, tmp_path: Path):
    given = [str(sample_folder()) if argument == "SAMPLES" else argument for argument in arguments]
    result = cli(*given, "--out", tmp_path / "out", "--quiet")
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out/data").exists()


def test_json_is_all_there_is_on_stdout(cli: Cli, tmp_path: Path):
    result = cli("tokenize", sample_folder(), "--out", tmp_path / "out", "--dry-run", "--json")
    assert result.json["inputs"] == 16
    assert not (tmp_path / "out").exists()
