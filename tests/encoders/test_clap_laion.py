"""LAION's own checkpoints, made by the classes of laion-clap itself, with few and narrow layers."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from clap_helpers import CLIP, of_file, randomise, sound, write_tokenizer
from numpy.typing import NDArray
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from audioprep.encoders.clap import Clap, Settings, describe, load
from audioprep.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")  # laion-clap's

AUDIO = {
    "audio_length": 1024, "clip_samples": CLIP, "mel_bins": 64, "sample_rate": 48_000, "window_size": 1024,
    "hop_size": 480, "fmin": 50, "fmax": 14_000, "class_num": 5, "model_type": "HTSAT", "model_name": "tiny",
}  # fmt: skip
TEXT = {"context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12, "model_type": "roberta"}
SIZES = {
    "as HTSAT-tiny": {"embed_dim": 8, "depths": [2, 2, 1], "num_heads": [2, 2, 4], "window_size": 8},
    "as HTSAT-base": {"embed_dim": 16, "depths": [1, 1, 3, 1], "num_heads": [1, 2, 4, 8], "window_size": 8},
}


@pytest.fixture(scope="module")
def classes() -> Any:
    """laion-clap's module `model`. Its packages are replaced by empty ones: importing them downloads tokenizers."""
    found = importlib.util.find_spec("laion_clap")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("laion-clap is not installed")
    root = Path(found.submodule_search_locations[0])
    for name, path in {"laion_clap": root, "laion_clap.clap_module": root / "clap_module"}.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    yield importlib.import_module("laion_clap.clap_module.model")
    for name in [name for name in sys.modules if name.partition(".")[0] == "laion_clap"]:
        del sys.modules[name]


def make(classes: Any, size: str = "as HTSAT-tiny", fused: bool = False) -> torch.nn.Module:
    """laion-clap's `CLAP` with random weights."""
    htsat = importlib.import_module("laion_clap.clap_module.htsat").HTSAT_Swin_Transformer
    shape = SIZES[size]
    config = RobertaConfig(
        vocab_size=261, num_hidden_layers=1, intermediate_size=32, type_vocab_size=1, max_position_embeddings=514
    )
    config.layer_norm_eps = 1e-5

    def tower(config: Any, fusion: bool, fusion_type: str) -> Any:
        return htsat(
            spec_size=256, patch_size=4, patch_stride=(4, 4), num_classes=5, config=config, enable_fusion=fusion,
            fusion_type=fusion_type, **shape,
        )  # fmt: skip

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "create_htsat_model", tower)
        patch.setattr(classes, "RobertaModel", SimpleNamespace(from_pretrained=lambda _: RobertaModel(config)))
        width = shape["embed_dim"] * 2 ** (len(shape["depths"]) - 1)
        model = classes.CLAP(width, AUDIO, TEXT, enable_fusion=fused, fusion_type="aff_2d" if fused else "None")
    randomise(model)
    return model.eval()


def save(model: torch.nn.Module, path: Path, *, wrapped: bool = True) -> Path:
    """As LAION's training script saves: with the names of a DistributedDataParallel, and a step size of numpy's."""
    state = model.state_dict()
    if wrapped:
        state["text_branch.embeddings.position_ids"] = torch.arange(514)[None]
        state = {f"module.{name}": value for name, value in state.items()}
        rates = {"param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.99)}]}
        torch.save({"epoch": 45, "name": "music", "state_dict": state, "optimizer": rates}, path)
    else:
        torch.save(state, path)
    return path


def laion_audio(model: Any, clip: NDArray[np.float32], fused: bool) -> NDArray[np.float32]:
    """laion-clap's embedding of a clip of at most 10 s, by the steps of its `get_audio_embedding_from_data`."""
    quantised = ((np.clip(clip, -1.0, 1.0) * 32767.0).astype(np.int16) / 32767.0).astype(np.float32)
    whole = np.tile(quantised, CLIP // len(clip))
    waveform = torch.from_numpy(np.pad(whole, (0, CLIP - len(whole))))
    inputs = {"waveform": waveform, "longer": torch.tensor([False])}
    if fused:
        torchaudio = pytest.importorskip("torchaudio")
        mel = torchaudio.transforms.MelSpectrogram(
            48_000, 1024, 1024, 480, f_min=50, f_max=14_000, n_mels=64, norm=None
        )(waveform)
        inputs["mel_fusion"] = torch.stack([torchaudio.transforms.AmplitudeToDB(top_db=None)(mel).T] * 4)
    with torch.inference_mode():
        return model.get_audio_embedding([inputs])[0].numpy()


def ours(path: Path, **settings: Any) -> Clap:
    return load(Settings(weights=str(path), **settings))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_audio_is_as_laion_embeds_it(size: str, fused: bool, classes: Any, tmp_path: Path):
    model = make(classes, size, fused)
    encoder = ours(save(model, tmp_path / "laion.pt"))
    for seconds in (10.0, 3.3):
        clip = sound(seconds)
        found, expected = encoder.encode(*of_file(encoder, clip))[0, 0], laion_audio(model, clip, fused)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found @ expected > 0.9999


def test_texts_are_as_laion_embeds_them(classes: Any, tmp_path: Path):
    model: Any = make(classes)
    write_tokenizer(tmp_path / "tokenizer")
    encoder = ours(save(model, tmp_path / "laion.pt"), tokenizer=str(tmp_path / "tokenizer"))
    texts = ["rain", "a slow piano piece " * 9]
    tokenizer = RobertaTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_embedding(dict(tokens)).numpy()
    np.testing.assert_allclose(encoder.embed_text(texts), expected, atol=1e-6)


def test_bare_tensors_give_the_same_as_all_that_training_held(classes: Any, tmp_path: Path):
    model = make(classes)
    first = ours(save(model, tmp_path / "all.pt"))
    second = ours(save(model, tmp_path / "bare.pt", wrapped=False))
    window = of_file(first, sound(2.0))
    np.testing.assert_array_equal(first.encode(*window), second.encode(*window))


def test_a_pt_in_a_folder_is_found_by_its_name(classes: Any, tmp_path: Path):
    path = save(make(classes), tmp_path / "laion.pt")
    assert describe(Settings(weights=str(tmp_path), file="laion.pt")) == describe(Settings(weights=str(path)))
    with pytest.raises(UsageError, match=r"has no music\.pt"):
        describe(Settings(weights=str(tmp_path), file="music.pt"))


def test_other_dimensions_are_refused(classes: Any, tmp_path: Path):
    state = make(classes).state_dict() | {"audio_projection.0.bias": torch.zeros(256)}
    torch.save(state, tmp_path / "laion.pt")
    with pytest.raises(UsageError, match="gives 256 dimensions"):
        ours(tmp_path / "laion.pt")


def test_the_spec_of_a_pt(classes: Any, tmp_path: Path):
    spec = describe(Settings(weights=str(save(make(classes), tmp_path / "laion.pt"))))
    assert (spec.dim, spec.sample_rate, spec.length) == (512, 48_000, 2 * CLIP)


def test_a_missing_tensor_is_named(classes: Any, tmp_path: Path):
    model = make(classes)
    state = model.state_dict()
    del state["audio_branch.layers.1.blocks.1.attn.qkv.weight"]
    torch.save(state, tmp_path / "laion.pt")
    with pytest.raises(UsageError, match=r"missing: .*layers\.1\.blocks\.1\.attention\.self\.key\.weight"):
        ours(tmp_path / "laion.pt")
    del state["audio_branch.bn0.weight"]
    torch.save(state, tmp_path / "laion.pt")
    with pytest.raises(UsageError, match=r"lacks 'audio_branch\.bn0\.weight'"):
        ours(tmp_path / "laion.pt")


def test_a_tensor_too_many_is_named(classes: Any, tmp_path: Path):
    torch.save(make(classes).state_dict() | {"audio_branch.extra": torch.zeros(2)}, tmp_path / "laion.pt")
    with pytest.raises(UsageError, match=r"unknown: audio_model\.audio_encoder\.extra"):
        ours(tmp_path / "laion.pt")


def test_a_truncated_pt_is_refused(classes: Any, tmp_path: Path):
    path = save(make(classes), tmp_path / "laion.pt")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UsageError, match=r"laion\.pt: cannot be read as a checkpoint"):
        ours(path)


class Bomb:
    """What a pickle can hold: a call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("boom",))


def test_code_in_a_pt_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"state_dict": {"audio_branch.bn0.weight": torch.zeros(2)}, "epoch": Bomb()}, tmp_path / "laion.pt")
    with pytest.raises(UsageError, match=r"laion\.pt: is a pickle that wants to call \S*print"):
        ours(tmp_path / "laion.pt")
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"weight": torch.zeros(3)}, [1, 2], {"state_dict": [3]}])
def test_other_checkpoints_are_refused(content: Any, tmp_path: Path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"other\.pt: is no CLAP checkpoint of LAION's"):
        ours(tmp_path / "other.pt")
