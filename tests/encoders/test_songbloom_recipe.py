"""From a corpus that is shaped like jaCappella to a folder that SongBloom's fork trains on, with tiny weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from muq_helpers import save_muq
from score_files import Measure, Song, kana, note, rest, write_corpus

from audioprep.bundled import recipe_path
from audioprep.cli.console import QuietConsole
from audioprep.cli.recipe import run_recipe

pytest.importorskip("music21")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers calls torch's older weight_norm


def song(name: str, verse: str, refrain: str) -> Song:
    lead = [
        Measure([note("TUTU"), rest(1)], tempo=60),
        Measure([*kana(refrain), rest(2)]),
        Measure([*kana(verse), rest(2)]),
        Measure([*kana(refrain), rest(2)]),
    ]
    return Song("enka", name, dict.fromkeys(("svs", "romaji", "default"), lead))


def run(corpus: Path, out: Path, weights: Path) -> dict[str, Any]:
    settings = [
        "jacappella.download=false",
        "jacappella.workers=1",
        f"jacappella.encoders=[{{encoder: vae, weights: {weights / 'vae'}}}]",
        "jacappella.splits={train: 0.5, validation: 0.5}",
        f"fit-muq-vq.weights={weights / 'muq'}",
        "fit-muq-vq.codebook_size=8",
        "fit-muq-vq.steps=4",
        f"encode.encoders=[{{encoder: muq-vq, weights: {weights / 'muq'}, "
        f"settings: {{codebook: {out / 'codebook.safetensors'}}}}}]",
        "encode.workers=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JACAPPELLA", str(corpus))
        patch.setenv("OUT", str(out))
        code, summaries = run_recipe(recipe_path("songbloom-ja"), settings, False, QuietConsole(), report=False)
    assert code == 0 and summaries, summaries
    return summaries


def test_the_recipe_from_end_to_end(tmp_path: Path) -> None:
    import torch
    from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck

    torch.manual_seed(0)
    AutoencoderOobleck(
        encoder_hidden_size=4, downsampling_ratios=[8, 15, 16], channel_multiples=[1, 1, 1], decoder_channels=4,
        decoder_input_channels=4, audio_channels=2, sampling_rate=48_000,
    ).save_pretrained(tmp_path / "weights/vae")  # fmt: skip
    save_muq(tmp_path / "weights/muq")
    songs = [song("popura", "このみち", "ラララ"), song("chatsumi", "なつもちかづく", "ラララ")]
    corpus, out = write_corpus(tmp_path / "corpus", songs, seconds=1.5), tmp_path / "out"
    summaries = run(corpus, out, tmp_path / "weights")
    assert summaries["jacappella"]["with_scat"] == 2 and summaries["export-songbloom"]["left_out"] == 0
    folder = out / "songbloom"
    tables = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.jsonl")}
    rows = [json.loads(line) for name in ("train", "validation") for line in tables.get(name, "").splitlines()]
    lyrics = {Path(row["audio_path"]).parent.name: row["lyrics"] for row in rows}
    assert lyrics == {
        "popura": "[chorus] ラララ , [verse] このみち , [chorus] ラララ",
        "chatsumi": "[chorus] ラララ , [verse] なつもちかづく , [chorus] ラララ",
    }
    for row in rows:
        cached = torch.load(folder / "cache" / f"{row['idx']}.pt", weights_only=True)
        assert cached["audio_latent"].shape == (2, 32) and cached["length"] == 32
        assert np.load(row["sketch_path"]).shape == (32,) and row["sections"] == "inferred"
        assert row["license"].startswith("jaCappella")
