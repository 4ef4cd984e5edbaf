"""From recordings with lyrics to a folder that SongBloom's fork trains on, and what its reader finds there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from command_line import audioprep
from latent_sets import write_set

from audioprep.encoders.base import EncoderSpec
from audioprep.errors import UsageError
from audioprep.export.songbloom import Options, SongBloomExport
from audioprep.export.songbloom_align import aligned_frames, fitted
from audioprep.export.songbloom_check import check
from audioprep.shards.columns import array_type

RATE, HOP = 48_000, 1920
SKETCH = EncoderSpec(
    "muq-vq", "tokens", 24_000, 1, 960, window=9600, left_context=0, right_context=0, batch_size=1,
    fingerprint="f" * 64, num_codebooks=1, codebook_size=16384,
)  # fmt: skip
LATENTS = EncoderSpec(
    "vae", "latents", RATE, 2, HOP, window=4 * HOP, left_context=HOP, right_context=HOP, batch_size=2,
    fingerprint="e" * 64, dim=64,
)  # fmt: skip
LYRICS = "[Verse]\nさくら さくら\n\n[Chorus]\nはるがきた"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * 2, 2)), RATE)
    return path


def shard_set(root: Path, recording: Path, lengths: list[tuple[int, int]], largest: int = 128, **texts: Any) -> Path:
    """A set of songs with these frames of sketch and of latents."""
    rows: list[dict[str, Any]] = []
    for number, (sketch, latents) in enumerate(lengths):
        random = np.random.default_rng(number)
        codes = random.integers(0, largest, (sketch, 1)).astype(np.uint16)
        codes[-1] = largest
        rows.append(
            {
                "id": f"{number:032x}",
                "uri": str(recording),
                "split": "train",
                "lyrics": LYRICS,
                "license": "CC0",
                "source": None,
                "metadata": json.dumps({"prompt_seconds": 3}),
                "duration": latents / 25,
                "num_frames": sketch,
                "sketch_tokens": codes,
                "latents": random.standard_normal((latents, 64)).astype(np.float16),
            }
            | texts
        )
    names = ("id", "uri", "split", "lyrics", "license", "source", "metadata", *texts)
    names = tuple(dict.fromkeys(names))
    arrays = {"sketch_tokens": array_type(pa.uint16(), 1), "latents": array_type(pa.float16(), 64)}
    encoders = {"sketch_tokens": SKETCH.to_dict(), "latents": LATENTS.to_dict()}
    return write_set(root, [rows], names, arrays, encoders)


def songs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_export_is_what_the_forks_reader_takes(tmp_path: Path, recording: Path) -> None:
    """Reads the files as `docs/training_data_format.md` and `training/dataset.py` of the fork say."""
    import torch

    shards = shard_set(tmp_path / "shards", recording, [(51, 50), (66, 67)])
    out = tmp_path / "out"
    assert audioprep("export", "songbloom", shards, out, "--quiet") == 0
    assert check(out) == [] and audioprep("verify", out, "--for", "songbloom", "-q") == 0
    for row, frames in zip(songs(out), (48, 64), strict=True):
        assert {"idx", "audio_path", "lyrics", "prompt_wav", "sketch_path"} <= row.keys()
        assert row["lyrics"] == "[verse] さくら さくら , [chorus] はるがきた"
        prompt, rate = soundfile.read(row["prompt_wav"])
        song, _ = soundfile.read(row["audio_path"])
        assert rate == RATE and prompt.shape == (3 * RATE, 2)
        np.testing.assert_allclose(prompt[: len(song)], song, atol=1e-4)
        assert not prompt[len(song) :].any()
        sketch = np.load(row["sketch_path"])
        cached = torch.load(out / "cache" / f"{row['idx']}.pt", weights_only=True)
        assert sketch.shape == (frames,) and sketch.dtype == np.int64
        assert cached["audio_latent"].shape == (64, frames) and cached["length"] == frames
        assert np.array_equal(cached["sketch_tokens"].numpy(), sketch) and cached["lyrics"] == row["lyrics"]


def test_the_same_again_changes_nothing_and_a_lost_file_comes_back(tmp_path: Path, recording: Path) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(50, 50)])
    out = tmp_path / "out"
    command = ("export", "songbloom", shards, out, "--sketch-format", "pt", "--quiet")
    assert audioprep(*command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and ".audioprep" not in path.parts}
    Path(songs(out)[0]["sketch_path"]).unlink()
    assert audioprep(*command) == 0
    assert before == {path: path.read_bytes() for path in before}
    assert check(out) == []
    assert audioprep(*command, "--align", "pad") == 1
    assert audioprep(*command, "--align", "pad", "--overwrite") == 0
    assert songs(out)[0]["idx"] in {path.stem for path in (out / "sketch").iterdir()} and check(out) == []


def test_codes_that_the_model_has_no_row_for_are_refused_before_a_byte_is_written(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    shards = shard_set(tmp_path / "shards", recording, [(50, 50)], largest=16383)
    model = tmp_path / "model.pt"
    torch.save({"model.skeleton_emb.weight": torch.zeros(130, 4)}, model)
    out = tmp_path / "out"
    assert audioprep("export", "songbloom", shards, out, "--model", model) == 1
    assert "16383, and the model knows 0 to 128" in capsys.readouterr().err and not out.exists()
    assert audioprep("export", "songbloom", shards, out, "--codes", 16384, "--quiet") == 0
    assert "knows 129" in check(out, codes=129)[0]
    torch.save({"other.weight": torch.zeros(1)}, model)
    assert audioprep("export", "songbloom", shards, out, "--model", model) == 1
    assert "no checkpoint of SongBloom" in capsys.readouterr().err


def test_lengths_are_compared_and_can_be_required(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(50, 50), (50, 53), (66, 67)])
    out = tmp_path / "out"
    assert audioprep("export", "songbloom", shards, out, "--verify-lengths", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["checked"], said["different"], said["largest_difference"]) == (3, 2, 3)
    assert audioprep("export", "songbloom", shards, out, "--verify-lengths", "--verify-lengths-max", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["checked"] == 1
    assert audioprep("export", "songbloom", shards, out, "--require-length-match") == 1
    assert "differ by 3 frames" in capsys.readouterr().err and not out.exists()
    assert audioprep("export", "songbloom", shards, out, "--align", "error", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 2
    assert "the sketch has 50 frames and the latents 53" in (out / "left_out.jsonl").read_text()


@pytest.mark.parametrize("policy", ["trim", "pad"])
def test_lengths_are_equal_whole_blocks_for_any_duration(policy: Any) -> None:
    random = np.random.default_rng(6)
    for seconds in random.uniform(0.1, 240, 1000):
        samples = round(seconds * RATE)
        sketch, latents = SKETCH.num_frames(round(seconds * 24_000)), LATENTS.num_frames(samples)
        sketch += int(random.integers(-1, 2)) * (sketch > 1)  # as other tools round
        frames = aligned_frames(sketch, latents, policy, longest=3750)
        assert frames % 16 == 0 and frames <= 3744
        assert abs(frames - min(latents, 3744)) <= 17
        assert len(fitted(np.zeros(sketch), frames)) == len(fitted(np.zeros((latents, 64)), frames)) == frames


def test_longer_songs_are_cut_and_short_ones_left_out(tmp_path: Path, recording: Path) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(100, 100), (15, 15)])
    export = SongBloomExport(shards, tmp_path / "out", Options(latents="latents", max_seconds=2.0))
    details = export.run(False, lambda done, total: None)
    assert details["songs"] == {"train": 1} and details["left_out"] == 1
    assert len(np.load(songs(tmp_path / "out")[0]["sketch_path"])) == 48


@pytest.mark.parametrize(
    ("lyrics", "said"),
    [("", "has no lyrics"), ("ただの歌", "--infer-sections"), ("[Rap]\nやあ", "unknown-tag")],
)
def test_lyrics_that_songbloom_cannot_take_are_named(tmp_path: Path, recording: Path, lyrics: str, said: str) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(50, 50)], lyrics=lyrics)
    with pytest.raises(UsageError, match=said):
        SongBloomExport(shards, tmp_path / "out", Options()).run(False, lambda done, total: None)


def test_columns_and_rates_are_checked(tmp_path: Path, recording: Path) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(50, 50)])
    with pytest.raises(UsageError, match="Did you mean latents"):
        SongBloomExport(shards, tmp_path / "out", Options(latents="latent"))
    with pytest.raises(UsageError, match="no column words"):
        SongBloomExport(shards, tmp_path / "out", Options(lyrics="words"))
    description = json.loads((shards / "dataset.json").read_text())
    description["encoders"]["latents"]["hop_length"] = 2048
    (shards / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match=r"23\.4375 frames a second"):
        SongBloomExport(shards, tmp_path / "out", Options(latents="latents"))


def test_the_check_finds_what_is_wrong(tmp_path: Path, recording: Path) -> None:
    shards = shard_set(tmp_path / "shards", recording, [(50, 50), (50, 50)])
    out = tmp_path / "out"
    assert check(tmp_path / "nothing")[0].endswith("has made.")
    assert audioprep("export", "songbloom", shards, out, "--quiet") == 0
    first, second = songs(out)
    np.save(first["sketch_path"], np.zeros((2, 8), np.float32))
    first["audio_path"], first["lyrics"] = "/gone.wav", "ただの歌"
    second["idx"] = first["idx"]
    rows = [json.dumps(first), json.dumps(second), "{}", "["]
    (out / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = "\n".join(check(out))
    for problem in ("/gone.wav: is not there", "not SongBloom's: no-tag", "not whole numbers in a row"):
        assert problem in found
    for problem in ("line 2: its idx is that of train.jsonl line 1", "line 3: lacks idx", "line 4: is no JSON"):
        assert problem in found
    assert "was made with other lyrics" in found


def test_dummies_pass_the_check_and_are_the_same_every_time(tmp_path: Path) -> None:
    out, again = tmp_path / "a" / "dummy", tmp_path / "b" / "dummy"
    options = ("--samples", 6, "--seconds", 1.28, "--prompt-sec", 0.5, "--splits", "train=0.5,validation=0.5", "-q")
    assert audioprep("make-dummy", out, *options) == 0
    assert check(out, codes=129) == []
    assert audioprep("make-dummy", again, *options) == 0
    made = sorted(path.relative_to(out) for path in out.rglob("*") if path.suffix in (".wav", ".npy", ".lyrics"))
    assert len(made) == 24 and all((out / name).read_bytes() == (again / name).read_bytes() for name in made)
    rows = [len((out / f"{split}.jsonl").read_text().splitlines()) for split in ("train", "validation")]
    assert sum(rows) == 6 and min(rows) > 0
    assert audioprep("make-dummy", out) == 1


def test_phonemes_in_songblooms_layout_are_taken_as_they_are(tmp_path: Path, recording: Path) -> None:
    written = "[verse] s a k u r a . h a r u , [chorus] h a n a"
    shards = shard_set(tmp_path / "shards", recording, [(50, 50)], lyrics=written, lyrics_sections="timed")
    SongBloomExport(shards, tmp_path / "out", Options()).run(False, lambda done, total: None)
    (row,) = songs(tmp_path / "out")
    assert (row["lyrics"], row["sections"]) == (written, "timed") and check(tmp_path / "out") == []
