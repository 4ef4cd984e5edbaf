"""Weights behind URLs: the same encoder as from a disk, fetched once, and anew where they have changed."""

from pathlib import Path
from typing import Any

import pytest
from dac_helpers import published, save_folder, save_pth
from store_files import put
from vae_helpers import diffusers_model

from audioprep.encoders.registry import describe_encoder
from audioprep.errors import UsageError
from audioprep.storage import transfer


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "weights"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "dac"
    folder.mkdir()
    return save_folder(published(), folder)


def test_a_folder_is_fetched_once(saved: Path, bucket: str, kept: Path, monkeypatch: pytest.MonkeyPatch):
    (saved / "README.md").write_text("not needed")
    url = put(saved, f"{bucket}/dac")
    fetched = []
    real = transfer.download
    monkeypatch.setattr(
        transfer, "download", lambda source, target: (fetched.append(source.name), real(source, target))
    )
    for where in (url, f"{url}/"):
        assert describe_encoder("dac", {"weights": where}) == describe_encoder("dac", {"weights": str(saved)})
    assert sorted(fetched) == ["config.json", "model.safetensors"]
    assert {path.name for path in kept.glob("*/*")} == {"config.json", "model.safetensors", "lock"}


def test_weights_that_change_are_fetched_anew(saved: Path, bucket: str):
    url = put(saved, f"{bucket}/dac")
    before = describe_encoder("dac", {"weights": url})
    other = saved / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-1] + b"\1")
    put(other, f"{url}/{other.name}")
    after = describe_encoder("dac", {"weights": url})
    assert after == describe_encoder("dac", {"weights": str(saved)}) != before


def test_files_of_several_kinds(weights: Path, tmp_path: Path, bucket: str):
    def same(name: str, path: Path, setting: str = "weights", **settings: Any) -> None:
        local, remote = ({setting: where} | settings for where in (str(path), put(path, f"{bucket}/files/{path.name}")))
        assert describe_encoder(name, remote) == describe_encoder(name, local)

    same("mel-rvq", weights)
    same("dac", save_pth(published(), tmp_path / "weights.pth"))
    diffusers_model().save_pretrained(tmp_path / "vae")
    checkpoint, config = (tmp_path / "vae" / name for name in ("diffusion_pytorch_model.safetensors", "config.json"))
    same("vae", checkpoint, config=str(config))


@pytest.mark.parametrize("name", ["dac", "mel-rvq"])
def test_weights_that_are_not_there_are_told(name: str, bucket: str):
    with pytest.raises(UsageError, match=r"s3://bucket-.*/nothing\.safetensors: no such file"):
        describe_encoder(name, {"weights": f"{bucket}/nothing.safetensors"})


def test_a_folder_that_lacks_files_is_told(saved: Path, bucket: str):
    (saved / "config.json").unlink()
    url = put(saved, f"{bucket}/dac")
    with pytest.raises(UsageError, match=r"s3://bucket-.*/dac: has no config\.json, so it holds no weights for dac"):
        describe_encoder("dac", {"weights": url})
