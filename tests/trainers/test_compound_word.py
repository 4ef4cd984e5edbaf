import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import symusic
import torch
from trainer_helpers import COMPOUND_WORD, load_trainer, train_in_two_processes, write_counting, write_shards

from audioprep.errors import UsageError
from audioprep.symbolic.tokenizers import load_tokenizer
from audioprep.symbolic.vocabulary import full_vocabulary

compound_word = load_trainer(COMPOUND_WORD)
SIZES = [len(values) for values in full_vocabulary(True).values()]
SCALES = {"C": (0, 2, 4, 5, 7, 9, 11), "F#": (6, 8, 10, 11, 1, 3, 5)}


def song(number: int) -> Any:
    """Repeats four tones of C major, or, where the number is odd, of F sharp major."""
    score: Any = symusic.Score(480)
    track: Any = symusic.Track(name="piano")
    random = np.random.default_rng(number)
    tones = [*random.permutation(14)[:4].tolist()] * 6
    for at, tone in enumerate(tones):
        pitch = 48 + 6 * (number % 2) + 12 * (tone // 7) + SCALES["C"][tone % 7]
        track.notes.append(symusic.Note(at * 240, 240, pitch, 64))
    score.tracks.append(track)
    score.tempos.append(symusic.Tempo(0, 110))
    score.key_signatures.append(symusic.KeySignature(0, 6 * (number % 2), 0))
    return score


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = (("beats", "score"), ("chords", "none"), ("key", "score"), ("meter", "keep"))
    tokenizer = load_tokenizer("emopia-cp", options, "")
    songs = [tokenizer.encode(song(number), f"Q{number // 2 + 1}_{number}.mid") for number in range(8)]
    assert [one.key for one in songs] == ["C", "F#"] * 4
    folder = tmp_path_factory.mktemp("songs") / "set"
    return write_shards(folder, "midi_tokens", [one.tokens for one in songs], tokenizer.spec.to_dict())


def settings(shards: Path, out: Path, **changes: Any) -> Any:
    small: dict[str, Any] = {
        "steps": 8, "batch_size": 4, "width": 32, "depth": 2, "heads": 2, "max_words": 128, "warmup": 2, "lr": 3e-3,
        "device": "cpu", "save_every": 3,
    }  # fmt: skip
    return compound_word.Settings(shards=shards, out=out, **(small | changes))


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]


def attention_by_table(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The definition: all weights of all words, in float64."""
    features = [torch.where(x > 0, x + 1, x.exp()) for x in (q.double(), k.double())]
    weights = (features[0] @ features[1].transpose(-1, -2)).tril()
    return (weights / weights.sum(-1, keepdim=True)) @ v.double()


@pytest.mark.parametrize("frames", [1, 63, 64, 65, 200])
def test_linear_attention_is_that_of_the_table(frames: int):
    random = torch.Generator().manual_seed(frames)
    q, k, v = (torch.randn(2, 3, frames, 8, generator=random, requires_grad=True) for _ in range(3))
    expected, found = attention_by_table(q, k, v), compound_word.linear_attention(q, k, v)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (expected, found)]
    for wanted, gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_attention_over_a_whole_song_stays_exact_in_bfloat16_layers():
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 1024, 16, generator=random).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        found = compound_word.linear_attention(q, k, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), attention_by_table(q, k, v), rtol=2**-7, atol=1e-3)


def test_the_seed_s_model_has_39_million_parameters(shards: Path):
    model = compound_word.CompoundWordModel(SIZES, compound_word.Settings(shards=shards, out=shards))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == pytest.approx(39.2e6, rel=0.02)


def test_word_by_word_is_as_all_at_once(shards: Path):
    torch.manual_seed(0)
    model = compound_word.CompoundWordModel(SIZES, settings(shards, shards)).eval()
    words = torch.stack([torch.randint(0, size, (1, 80)) for size in SIZES], -1)
    types = torch.randint(0, 5, (1, 80))
    states = model.new_states(torch.device("cpu"))
    with torch.no_grad():
        whole = model(words, types)
        said = torch.cat([model.step(words[:, place], place, states) for place in range(80)], 1)
        for one, other in zip(model.logits(said, types), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_padding_does_not_change_the_losses(shards: Path):
    torch.manual_seed(0)
    model = compound_word.CompoundWordModel(SIZES, settings(shards, shards)).eval()
    words = torch.stack([torch.randint(0, size, (2, 40)) for size in SIZES], -1)
    mask = torch.ones(2, 40, dtype=torch.bool)
    longer, padded = torch.nn.functional.pad(words, (0, 0, 0, 9)), torch.nn.functional.pad(mask, (0, 9))
    for one, other in zip(
        compound_word.losses_of(model, words, mask), compound_word.losses_of(model, longer, padded), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="session")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows the eight songs."""
    out = tmp_path_factory.mktemp("run")
    changes = {"steps": 250, "batch_size": 8, "width": 64, "heads": 8, "max_words": 64, "lr": 1e-2, "warmup": 20}
    compound_word.train(settings(shards, out, **changes, dropout=0.0, save_every=50, keep_every=100))
    return out


def test_eight_songs_are_learnt_by_heart(trained: Path):
    rows = log(trained)
    assert rows[-1]["loss"] < 0.05 * rows[0]["loss"]
    assert rows[-1]["pitch"] < 0.2
    assert set(compound_word.NAMES) <= set(rows[0])
    mean = sum(rows[-1][name] for name in compound_word.NAMES) / len(compound_word.NAMES)
    assert rows[-1]["loss"] == pytest.approx(mean, rel=1e-4)
    assert sorted(path.name for path in trained.glob("*.pt")) == [
        "best.pt",
        "latest.pt",
        "step-0000100.pt",
        "step-0000200.pt",
    ]


@pytest.mark.parametrize("key", ["C", "F#"])
def test_generated_songs_are_in_the_key_that_is_asked_for(trained: Path, tmp_path: Path, key: str):
    inside = notes = 0
    for seed in range(3):
        out = tmp_path / f"{seed}.mid"
        summary = compound_word.generate(
            compound_word.Generation(checkpoint=trained / "best.pt", out=out, emotion=seed + 1, key=key, seed=seed)
        )
        score: Any = symusic.Score(out)
        pitches = [note.pitch for track in score.tracks for note in track.notes]
        assert len(pitches) == summary["notes"] > 0
        assert max(note.end for track in score.tracks for note in track.notes) <= summary["bars"] * 1920 + 1920
        inside += sum(pitch % 12 in SCALES[key] for pitch in pitches)
        notes += len(pitches)
    assert inside / notes > 0.9  # by chance 7 of 12


def test_the_same_seed_writes_the_same_song(trained: Path, tmp_path: Path):
    argv = ["generate", str(trained / "best.pt"), "--max-words", "60", "--temperature", "3"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert compound_word.main([*argv, "--out", str(tmp_path / name), "--seed", seed]) == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_an_untrained_model_writes_scores_too(shards: Path, tmp_path: Path):
    compound_word.train(settings(shards, tmp_path, steps=1))
    asked = {"checkpoint": tmp_path / "latest.pt", "out": tmp_path / "x.mid", "temperature": 5.0, "top_p": 1.0}
    summary = compound_word.generate(compound_word.Generation(**asked))
    score: Any = symusic.Score(tmp_path / "x.mid")
    assert sum(len(track.notes) for track in score.tracks) == summary["notes"]
    with pytest.raises(UsageError, match="--key H: it is one of A, A#"):
        compound_word.generate(compound_word.Generation(**asked, key="H"))


@pytest.mark.parametrize(
    ("task", "emotions"),
    [("4-cls", [1, 2, 3, 4]), ("arousal", [1, 1, 2, 2]), ("valence", [1, 2, 2, 1]), ("ignore", [0, 0, 0, 0])],
)
def test_what_a_model_is_told_of_emotion(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, emotions: list[int]
):
    real, told = compound_word.losses_of, {}

    def sees(network: Any, words: torch.Tensor, mask: torch.Tensor) -> Any:
        for one in words:  # the quadrant is told by the songs' first notes, which are all others
            told[tuple(one[4:12, 4].tolist())] = int(one[0, 7])
        return real(network, words, mask)

    monkeypatch.setattr(compound_word, "losses_of", sees)
    compound_word.train(settings(shards, tmp_path, steps=2, task_type=task))
    assert sorted(told.values()) == sorted(emotions * 2)


def test_a_killed_run_ends_as_one_that_was_not(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compound_word.train(settings(shards, tmp_path / "whole"))
    real, calls = compound_word.losses_of, []

    def dies(*given: Any) -> Any:
        calls.append(0)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(compound_word, "losses_of", dies)
    with pytest.raises(KeyboardInterrupt):
        compound_word.train(settings(shards, tmp_path / "killed"))
    monkeypatch.setattr(compound_word, "losses_of", real)
    compound_word.train(settings(shards, tmp_path / "killed"))
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    for name in ("latest.pt", "best.pt"):
        whole, killed = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "killed"))
        assert (killed["step"], killed["loader"]) == (whole["step"], whole["loader"])
        assert all(torch.equal(killed["model"][key], value) for key, value in whole["model"].items())


def test_two_processes_train_one_model(shards: Path, tmp_path: Path):
    found = train_in_two_processes(COMPOUND_WORD, shards, tmp_path, "--steps", "4", "--max-words", "64")
    assert found["steps"] == len(log(tmp_path)) == 4
    # Eight songs are four batches of two, of which each process takes two: four steps are two epochs, less the turn.
    state = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert (state["loader"]["epoch"], state["loader"]["batch"]) == (1, 4)


def test_the_best_checkpoint_is_that_of_the_least_loss(shards: Path, tmp_path: Path):
    compound_word.train(settings(shards, tmp_path, valid_split="train", lr=0.3, steps=9, warmup=0))
    compared = {row["step"]: row["compared"] for row in log(tmp_path) if "compared" in row}
    assert list(compared) == [3, 6, 9]
    best = torch.load(tmp_path / "best.pt", weights_only=True)["step"]
    assert best == min(compared, key=compared.__getitem__)


def test_other_shards_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="has no compound words; make them with `audioprep midi"):
        compound_word.train(settings(write_counting(tmp_path / "set"), tmp_path / "run"))
    (tmp_path / "no.pt").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"no\.pt: is no checkpoint of compound-word"):
        compound_word.load_model(tmp_path / "no.pt", torch.device("cpu"))
