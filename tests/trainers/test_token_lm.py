import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from store_files import files_at
from trainer_helpers import CODEBOOKS, SIZE, TOKEN_LM, load_trainer, train_in_two_processes, write_counting

from audioprep.errors import UsageError
from audioprep.training import learning_rate

token_lm = load_trainer(TOKEN_LM)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting(tmp_path_factory.mktemp("shards") / "set")


def settings(shards: Path, out: Path | str, **changes: Any) -> Any:
    small: dict[str, Any] = {
        "steps": 12, "batch_size": 4, "width": 32, "depth": 1, "heads": 2, "max_frames": 16, "warmup": 2,
        "lr": 1e-2, "device": "cpu", "dropout": 0.1, "save_every": 5,
    }  # fmt: skip
    return token_lm.Settings(shards=shards, out=out, **(small | changes))


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def test_delay_shifts_each_codebook_by_its_number():
    tokens = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    assert token_lm.delay(tokens, 0).tolist() == [[[1, 0, 0], [4, 2, 0], [0, 5, 3], [0, 0, 6]]]


@pytest.mark.parametrize(("frames", "codebooks"), [(1, 1), (1, 4), (9, 1), (9, 4)])
def test_undelay_inverts_delay(frames: int, codebooks: int):
    tokens = torch.randint(0, 50, (3, frames, codebooks), generator=torch.Generator().manual_seed(0))
    assert torch.equal(token_lm.undelay(token_lm.delay(tokens, 50)), tokens)


def make_model(shards: Path) -> Any:
    torch.manual_seed(0)
    return token_lm.TokenLM(CODEBOOKS, SIZE, settings(shards, shards, dropout=0.0))


def test_model_sees_no_future(shards: Path):
    model = make_model(shards)
    steps = torch.randint(0, SIZE, (1, 10, CODEBOOKS), generator=torch.Generator().manual_seed(0))
    changed = steps.clone()
    changed[0, 6:] = (changed[0, 6:] + 1) % SIZE
    before, after = model(steps), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6], after[:, 6])


def test_padding_does_not_change_the_loss(shards: Path):
    model = make_model(shards)
    tokens = torch.randint(0, SIZE, (2, 8, CODEBOOKS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 8, dtype=torch.bool)
    longer = torch.cat([tokens, torch.zeros(2, 4, CODEBOOKS, dtype=torch.long)], 1)
    padded = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], 1)
    expected = token_lm.loss_of(model, tokens, mask, SIZE)
    torch.testing.assert_close(token_lm.loss_of(model, longer, padded, SIZE), expected)
    assert float(expected.detach()) == pytest.approx(torch.tensor(float(SIZE)).log().item(), rel=0.1)


def test_learning_rate_rises_and_falls(shards: Path, tmp_path: Path):
    chosen = settings(shards, tmp_path, steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, chosen) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_loss_falls_and_all_files_are_there(shards: Path, tmp_path: Path):
    summary = token_lm.train(settings(shards, tmp_path, steps=60, dropout=0.0))
    logged = losses(tmp_path)
    assert summary["first_loss"] == pytest.approx(sum(logged[:10]) / 10)
    assert summary["last_loss"] == pytest.approx(sum(logged[-10:]) / 10)
    assert summary["last_loss"] < 0.5 * summary["first_loss"]
    assert summary["steps"] == 60
    assert summary["tokens_per_second"] > 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_checkpoint_is_plain_data(shards: Path, tmp_path: Path):
    summary = token_lm.train(settings(shards, tmp_path, steps=1))
    state = torch.load(summary["checkpoint"], weights_only=True)
    assert state["step"] == 1
    assert state["settings"]["width"] == 32
    make_model(shards).load_state_dict(state["model"])
    assert sorted(path.name for path in tmp_path.iterdir() if "tfevents" not in path.name) == [
        "best.pt",
        "latest.pt",
        "loss.jsonl",
        "loss.png",
    ]


def die_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = token_lm.loss_of
    calls = []

    def dies(*args: Any) -> Any:
        calls.append(0)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(token_lm, "loss_of", dies)


def assert_ended_alike(killed: Path, whole: Path) -> None:
    assert losses(killed) == losses(whole)
    states = [torch.load(folder / "latest.pt", weights_only=True) for folder in (killed, whole)]
    assert states[0]["loader"] == states[1]["loader"]
    for name, value in states[1]["model"].items():
        assert torch.equal(states[0]["model"][name], value)


@pytest.mark.parametrize("stop", [5, 7])
def test_a_killed_run_ends_as_one_that_was_not(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
):
    token_lm.train(settings(shards, tmp_path / "whole"))
    with monkeypatch.context() as patched:
        die_after(stop, patched)
        with pytest.raises(KeyboardInterrupt):
            token_lm.train(settings(shards, tmp_path / "killed"))
    assert len(losses(tmp_path / "killed")) == stop
    token_lm.train(settings(shards, tmp_path / "killed"))
    assert_ended_alike(tmp_path / "killed", tmp_path / "whole")


def test_a_run_in_a_store_goes_on_from_there(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
):
    store = f"{bucket}/runs/first"
    token_lm.train(settings(shards, tmp_path / "whole", keep_every=5))
    with monkeypatch.context() as patched:
        die_after(7, patched)
        with pytest.raises(KeyboardInterrupt):
            token_lm.train(settings(shards, store, keep_every=5))
    found = token_lm.train(settings(shards, store, keep_every=5))
    assert found["checkpoint"] == f"{store}/latest.pt"
    (tmp_path / "fetched").mkdir()
    for name, content in files_at(store).items():
        (tmp_path / "fetched" / name).write_bytes(content)
    assert_ended_alike(tmp_path / "fetched", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "fetched").iterdir() if "tfevents" not in path.name}
    assert names == {path.name for path in (tmp_path / "whole").iterdir() if "tfevents" not in path.name}
    assert "step-0000005.pt" in names


def test_a_store_that_refuses_is_told(shards: Path, bucket: str):
    with pytest.raises(UsageError, match="s3://no-such-bucket/run/"):
        token_lm.train(settings(shards, "s3://no-such-bucket/run", steps=1))


def test_a_finished_run_stays_as_it_is(shards: Path, tmp_path: Path):
    first = token_lm.train(settings(shards, tmp_path, steps=3))
    content = (tmp_path / "latest.pt").read_bytes()
    again = token_lm.train(settings(shards, tmp_path, steps=3))
    assert (again["first_loss"], again["last_loss"]) == (first["first_loss"], first["last_loss"])
    assert (tmp_path / "latest.pt").read_bytes() == content


def test_a_changed_model_is_refused(shards: Path, tmp_path: Path):
    token_lm.train(settings(shards, tmp_path, steps=1))
    with pytest.raises(UsageError, match=r"latest\.pt: made with other settings: width was 32, is 64\. Keep"):
        token_lm.train(settings(shards, tmp_path, steps=2, width=64))


def test_bf16_trains(shards: Path, tmp_path: Path):
    summary = token_lm.train(settings(shards, tmp_path, steps=30, precision="bf16", dropout=0.0))
    assert summary["last_loss"] < summary["first_loss"] - 0.3


def test_a_folder_without_tokens_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no shard set with audio_tokens .* `audioprep tokenize`"):
        token_lm.train(settings(tmp_path / "nothing", tmp_path / "run"))


def test_heads_must_divide_the_width(shards: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="width 30 is no multiple of heads 4"):
        settings(shards, tmp_path, width=30, heads=4)


def test_main_prints_one_summary(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    argv = [str(shards), "--out", str(tmp_path), "--steps", "2", "--width", "16", "--depth", "1", "--device", "cpu"]
    assert token_lm.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_main_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        token_lm.main([str(tmp_path), "--out", str(tmp_path / "run")])
    assert exit_.value.code == 1
    assert "no shard set" in capsys.readouterr().err


def test_without_a_terminal_progress_is_logged(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        token_lm.train(settings(shards, tmp_path, steps=2))
    assert "step 1 of 2, loss" in caplog.text


def test_two_processes_train_one_model(shards: Path, tmp_path: Path):
    found = train_in_two_processes(TOKEN_LM, shards, tmp_path, "--steps", "6", "--save-every", "3")
    assert found["steps"] == 6
    assert len(losses(tmp_path)) == 6
    state = torch.load(tmp_path / "latest.pt", weights_only=True)
    # Ten items give five batches of two; the fifth has no counterpart in the other process.
    assert (state["loader"]["epoch"], state["loader"]["batch"]) == (2, 4)


def test_excluded_items_are_as_if_they_were_not_there(shards: Path, tmp_path: Path):
    listed = tmp_path / "exclude.txt"
    listed.write_text("6\n7\n8\n9\n")
    token_lm.train(settings(shards, tmp_path / "excluded", exclude=listed, steps=4))
    token_lm.train(settings(write_counting(tmp_path / "fewer", items=6), tmp_path / "without", steps=4))
    assert losses(tmp_path / "excluded") == losses(tmp_path / "without")
    listed.write_text("\n".join(map(str, range(10))))
    with pytest.raises(UsageError, match="all 10 items are on the list"):
        token_lm.train(settings(shards, tmp_path / "none", exclude=listed))
