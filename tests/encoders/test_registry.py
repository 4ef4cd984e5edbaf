import sys
from pathlib import Path

import pytest

from audioprep.encoders import registry
from audioprep.encoders.registry import describe_encoder, encoder_names, load_encoder
from audioprep.errors import UsageError

PLUGIN = """
from pydantic import BaseModel
from audioprep.encoders.base import EncoderSpec

class Settings(BaseModel):
    bands: int = 4
    device: str = "cpu"

def describe(settings):
    return EncoderSpec("tiny", "tokens", 8000, 1, 80, 800, 0, 0, 1, "none", settings.bands, 16)

def load(settings):
    import a_package_that_is_not_installed
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An installed package that registers the encoder `tiny`."""
    (tmp_path / "tiny_encoder.py").write_text(PLUGIN)
    info = tmp_path / "tiny_encoder-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[audioprep.encoders]\ntiny = tiny_encoder\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    registry._module.cache_clear()
    sys.modules.pop("tiny_encoder", None)


def test_ours_is_there():
    assert "mel-rvq" in encoder_names()
    assert describe_encoder("mel-rvq", {}).num_codebooks == 4


def test_an_installed_package_adds_an_encoder(plugin: None):
    assert "tiny" in encoder_names()
    assert describe_encoder("tiny", {"bands": 3}).num_codebooks == 3


def test_a_missing_package_is_named(plugin: None):
    with pytest.raises(UsageError, match="tiny: needs the package a_package_that_is_not_installed"):
        load_encoder("tiny", {})


def test_a_misspelt_name():
    with pytest.raises(UsageError, match="no encoder is called mel_rvq. Did you mean mel-rvq"):
        describe_encoder("mel_rvq", {})


def test_a_setting_that_is_not_there():
    with pytest.raises(UsageError, match=r"mel-rvq: setting bands: .* Settings: device, num_codebooks, weights"):
        describe_encoder("mel-rvq", {"bands": 3})
