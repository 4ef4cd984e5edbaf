"""Tokens of another tool: where they lie, which way round they are, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from audioprep.commands.import_tokens import Settings, _Choice
from audioprep.corpus.entry import Entry
from audioprep.errors import Reason
from audioprep.stages.base import Failed, Kept, Resources
from audioprep.stages.imported import ImportTokens

FRAMES = 25  # two seconds of HeartCodec
TOKENS = np.random.default_rng(0).integers(0, 8192, (FRAMES, 8))


def stage(tokens: str = "{folder}/{stem}.npy") -> ImportTokens:
    settings = {"source": ["x"], "out": "x", "codec": "heartcodec", "tokens": tokens}
    return _Choice(Settings.model_validate(settings)).stage("cpu")


def outcome(recording: Path, tokens: str = "{folder}/{stem}.npy", seconds: float = 2.0) -> Kept | Failed:
    soundfile.write(recording, np.zeros(int(seconds * 16_000)), 16_000)
    ((name, found),) = ImportTokens.run([stage(tokens)], [Entry(str(recording))], Resources())
    assert name == "audio_tokens"
    return found


def imported(found: Kept | Failed) -> NDArray[Any]:
    assert isinstance(found, Kept), found
    assert found.columns["num_frames"] == len(found.columns["audio_tokens"])
    assert found.columns["duration"] == 2.0
    return found.columns["audio_tokens"]


def refused(found: Kept | Failed) -> str:
    assert isinstance(found, Failed)
    assert found.error.reason is Reason.TOKENS
    return found.error.detail


@pytest.mark.parametrize(
    "saved",
    [TOKENS, TOKENS.T, TOKENS.astype(np.int16), TOKENS[None], np.vstack([TOKENS, np.full((1, 8), 8193)])],
    ids=["frames first", "codebooks first", "narrow", "a batch of one", "with an end mark"],
)
def test_every_way_round_becomes_frames_by_codebooks(tmp_path: Path, saved: NDArray[Any]):
    np.save(tmp_path / "a.npy", saved)
    np.testing.assert_array_equal(imported(outcome(tmp_path / "a.wav")), TOKENS)


def test_archives_and_checkpoints(tmp_path: Path):
    elsewhere = tmp_path / "tokens"
    elsewhere.mkdir()
    np.savez(elsewhere / "a.npz", tokens=TOKENS, rate=np.array(12.5))
    np.savez(elsewhere / "b.npz", TOKENS)
    torch.save({"codes": torch.from_numpy(TOKENS)}, elsewhere / "c.pt")
    torch.save(torch.from_numpy(TOKENS), elsewhere / "d.pt")
    for name, suffix in [("a", "npz"), ("b", "npz"), ("c", "pt"), ("d", "pt")]:
        found = outcome(tmp_path / f"{name}.flac", f"{elsewhere}/{{stem}}.{suffix}")
        np.testing.assert_array_equal(imported(found), TOKENS)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (np.vstack([TOKENS, TOKENS]), "have 50 frames for 2.00 s, 25.00 a second; heartcodec has 12.5"),
        (TOKENS.astype(np.float32), "are float32 [25, 8]"),
        (TOKENS[:, 0], "are int64 [25]"),
        (TOKENS[:, :4], "are int64 [25, 4]"),
        (TOKENS[:8], "which side is time cannot be told"),
        (TOKENS + 8192, "have no frames"),
        (TOKENS + 1000, "a codebook has 8192"),
        (TOKENS - 5000, "a codebook has 8192"),
        (TOKENS[:0], "have no frames"),
        (np.array([{}]), "would have to run code"),
    ],
)
def test_what_is_refused(tmp_path: Path, saved: NDArray[Any], message: str):
    np.save(tmp_path / "a.npy", saved, allow_pickle=True)
    detail = refused(outcome(tmp_path / "a.wav"))
    assert message in detail
    assert str(tmp_path / "a.npy") in detail


def test_files_that_cannot_be_read(tmp_path: Path):
    assert "there is no such file" in refused(outcome(tmp_path / "a.wav"))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    assert "are no arrays of numpy" in refused(outcome(tmp_path / "b.wav"))
    np.savez(tmp_path / "c.npz", x=TOKENS, y=TOKENS)
    assert "name the array `tokens`" in refused(outcome(tmp_path / "c.wav", "{folder}/{stem}.npz"))


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code of a pickle was run",))


def test_code_in_a_pickle_is_not_run(tmp_path: Path):
    torch.save(Evil(), tmp_path / "a.pt")
    assert "wants to call" in refused(outcome(tmp_path / "a.wav", "{folder}/{stem}.pt"))


def test_a_broken_recording_is_its_own_failure(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    ((_, found),) = ImportTokens.run([stage()], [Entry(str(tmp_path / "a.wav"))], Resources())
    assert isinstance(found, Failed)
    assert found.error.reason is not Reason.TOKENS
