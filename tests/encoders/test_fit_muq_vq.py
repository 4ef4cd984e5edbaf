from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from encoder_helpers import RATE, music
from muq_helpers import DIM, plain, save_muq
from safetensors import safe_open

from audioprep.cli.console import QuietConsole
from audioprep.cli.encoding import fit_muq_vq as command
from audioprep.commands import fit_muq_vq
from audioprep.commands.base import Counter
from audioprep.commands.frame_cache import FrameCache
from audioprep.corpus.entry import Entry
from audioprep.encoders import muq_vq
from audioprep.encoders.vq import FORMAT
from audioprep.errors import UsageError
from audioprep.samples import sample_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("muq")
    save_muq(path)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight recordings of 4 to 11 s: 1,500 frames."""
    folder = tmp_path_factory.mktemp("music")
    for seed in range(8):
        soundfile.write(folder / f"{seed}.wav", music(4.0 + seed, seed)[0], RATE)
    return folder


class Killed(Exception):
    """What ends a run in the middle."""


class Console(QuietConsole):
    """Kills the run once a counter gets so far; keeps the notes."""

    def __init__(self, label: str = "", at: int = 0) -> None:
        self._label, self._at = label, at
        self.notes: list[str] = []

    @contextmanager
    def counter(self, label: str) -> Iterator[Counter]:
        def count(done: int, total: int | None, note: str = "") -> None:
            if note:
                self.notes.append(note)
            if label == self._label and done == self._at:
                raise Killed

        yield count


Fit = Callable[..., dict[str, Any]]


@pytest.fixture
def fit(model: Path, corpus: Path, tmp_path: Path) -> Fit:
    def run(console: Console | None = None, **changes: Any) -> dict[str, Any]:
        options = {"source": [str(corpus)], "out": tmp_path / "codebook.safetensors", "weights": str(model)}
        options |= {"codebook_size": 32, "steps": 30, "batch_frames": 256, "decay": 0.8, "checkpoint_steps": 4}
        settings = fit_muq_vq.Settings.model_validate(options | {"device": "cpu"} | changes)
        return fit_muq_vq.run(settings, console or Console())

    return run


def facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[FORMAT])


def test_the_bundled_samples_use_nearly_all_of_129_codes(fit: Fit, model: Path, tmp_path: Path):
    console = Console()
    picture = tmp_path / "fit.png"
    report = fit(
        console, source=[str(sample_folder())], codebook_size=129, steps=100, batch_frames=1024, decay=0.9, plot=picture
    )
    assert report["usage"] > 0.9 and report["perplexity"] > 60
    assert report["failed"] == 1  # one sample is broken on purpose
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(console.notes) == 100 and console.notes[-1].startswith("perplexity ")
    path = tmp_path / "codebook.safetensors"
    spec = muq_vq.describe(muq_vq.Settings(weights=str(model), codebook=path))
    assert spec.codebook_size == 129
    said = facts(path)
    assert (said["layer"], said["weights"], said["distance"]) == (3, spec.fingerprint, "euclidean")
    assert said["usage"] == report["usage"]


@pytest.mark.parametrize(
    ("label", "at"), [("Reading audio", 1), ("Reading audio", 5), ("Fitting", 3), ("Fitting", 18), ("Fitting", 30)]
)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_killed_run_goes_on_to_the_same_bytes(label: str, at: int, distance: str, fit: Fit, tmp_path: Path):
    whole = tmp_path / "whole.safetensors"
    fit(out=whole, distance=distance)
    with pytest.raises(Killed):
        fit(Console(label, at), distance=distance)
    out = tmp_path / "codebook.safetensors"
    assert not out.exists()
    report = fit(distance=distance)
    assert out.read_bytes() == whole.read_bytes()
    assert report["frames"] == 1500
    assert fit(distance=distance) == {"weights": str(out), "already_there": True}
    assert not list(tmp_path.rglob("fit-*")) and not list(tmp_path.rglob("*scratch"))


def test_what_is_done_is_not_done_again(fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(Killed):
        fit(Console("Reading audio", 5))
    (index,) = tmp_path.rglob("index.jsonl")
    assert len(index.read_text().splitlines()) == 5
    with pytest.raises(Killed):
        fit(Console("Fitting", 18))
    monkeypatch.setattr("audioprep.encoders.muq.load", None)  # hidden states are all there
    console = Console()
    fit(console)
    assert len(console.notes) == 30 - 16
    fit(codebook_size=16, out=tmp_path / "smaller.safetensors", cache=tmp_path / "codebook.safetensors.frames")


def test_the_cache_holds_what_muq_gives(fit: Fit, corpus: Path, model: Path, tmp_path: Path):
    from muq import MuQ

    fit()
    (index,) = tmp_path.rglob("index.jsonl")
    cache = FrameCache(index.parent, DIM)
    path = corpus / "3.wav"
    rows = cache.rows([Entry(str(path), path.stat().st_size)], 10_000)
    sound, _ = soundfile.read(path, dtype="float32")
    want = plain(MuQ.from_pretrained(model).eval(), np.asarray(sound, np.float32)[None])
    np.testing.assert_allclose(cache.values()[rows], want, atol=4e-3)


def test_a_bounded_number_of_frames_of_random_files(fit: Fit, tmp_path: Path):
    assert fit(max_frames=400)["frames"] == 400
    (index,) = tmp_path.rglob("index.jsonl")
    few = len(index.read_text().splitlines())
    assert few < 5
    other = fit(max_frames=400, seed=1, overwrite=True)  # draws other files
    assert other["frames"] == 400 and len(index.read_text().splitlines()) > few


def test_another_layer_has_a_cache_of_its_own_and_is_refused_by_others(fit: Fit, model: Path, tmp_path: Path):
    fit()
    fit(layer=1, overwrite=True)
    assert len(list(tmp_path.rglob("index.jsonl"))) == 2
    path = tmp_path / "codebook.safetensors"
    assert muq_vq.describe(muq_vq.Settings(weights=str(model), codebook=path)).settings["layer"] == 1
    with pytest.raises(UsageError, match=r"codebook.safetensors: was fitted to layer 1, and this is layer 3"):
        muq_vq.describe(muq_vq.Settings(weights=str(model), codebook=path, layer=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 2000}, "1500 frames of 40 ms cannot fill 2000 codewords; pass more audio"),
        ({"out": Path("codebook.pt")}, "codebook.pt: a codebook is a safetensors file"),
        ({"layer": 7}, "has hidden states 0 to 3, and layer is 7"),
        ({"weights": "no/such/folder"}, "no/such/folder: no such file or folder"),
        ({"source": ["no-such-folder"]}, "no-such-folder: no such file or folder"),
    ],
)
def test_what_cannot_be_fitted(changes: dict[str, Any], message: str, fit: Fit):
    with pytest.raises(UsageError, match=message):
        fit(**changes)


def test_no_audio(fit: Fit, tmp_path: Path):
    folder = tmp_path / "audio"
    folder.mkdir()
    with pytest.raises(UsageError, match="audio: holds no audio files"):
        fit(source=[str(folder)])
    (folder / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="audio: holds no audio that can be decoded"):
        fit(source=[str(folder)])


def test_two_runs_at_once_are_refused(fit: Fit, tmp_path: Path):
    class Nested(Console):
        @contextmanager
        def counter(self, label: str) -> Iterator[Counter]:
            fit()
            yield lambda done, total, note="": None

    with pytest.raises(UsageError, match="another run is writing here"):
        fit(Nested())


def test_the_command_line_has_every_setting_with_its_default():
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in ("dry_run", "json", "quiet")
    }
    fields = fit_muq_vq.Settings.model_fields
    assert options.keys() == fields.keys()
    given = {name: fields[name].default for name in options if not fields[name].is_required()}
    assert given == {name: options[name] for name in given}


class TestFrameCache:
    def frames(self, count: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float16)

    @pytest.fixture
    def cache(self, tmp_path: Path) -> FrameCache:
        cache = FrameCache(tmp_path, 4)
        for number in range(3):
            cache.append(Entry(f"{number}.wav", 10), self.frames(5, number))
        return cache

    def check(self, folder: Path, count: int) -> None:
        cache = FrameCache(folder, 4)
        entries = [Entry(f"{number}.wav", 10) for number in range(3)]
        assert [cache.count(entry) for entry in entries] == [5] * count + [None] * (3 - count)
        want = np.concatenate([np.empty((0, 4)), *(self.frames(5, number) for number in range(count))])
        np.testing.assert_array_equal(cache.values()[cache.rows(entries, 100)], want)
        cache.append(Entry("more.wav", 1), self.frames(2, 9))
        np.testing.assert_array_equal(cache.values()[cache.rows([Entry("more.wav", 1)], 9)], self.frames(2, 9))

    def test_is_there_later(self, cache: FrameCache, tmp_path: Path):
        self.check(tmp_path, 3)

    def test_a_file_that_has_changed_is_not_there(self, cache: FrameCache):
        assert cache.count(Entry("0.wav", 11)) is None

    def test_rows_are_in_the_order_of_the_files(self, cache: FrameCache):
        rows = cache.rows([Entry("2.wav", 10), Entry("none.wav", 10), Entry("0.wav", 10)], 8)
        np.testing.assert_array_equal(rows, [10, 11, 12, 13, 14, 0, 1, 2])

    @pytest.mark.parametrize(("cut", "count"), [(1, 2), (30, 2), (60, 1), (200, 0)])
    def test_a_torn_index(self, cut: int, count: int, cache: FrameCache, tmp_path: Path):
        path = tmp_path / "index.jsonl"
        path.write_bytes(path.read_bytes()[:-cut])
        self.check(tmp_path, count)

    def test_frames_that_were_never_entered(self, cache: FrameCache, tmp_path: Path):
        with (tmp_path / "frames.f16").open("ab") as file:
            file.write(b"half of a file's")
        self.check(tmp_path, 3)

    def test_frames_that_are_missing(self, cache: FrameCache, tmp_path: Path):
        path = tmp_path / "frames.f16"
        path.write_bytes(path.read_bytes()[:-1])
        self.check(tmp_path, 2)
