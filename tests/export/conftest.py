from __future__ import annotations

import pytest
from latent_sets import SilentEncoder

from audioprep.export import silence


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> SilentEncoder:
    """What the shard sets of these tests name as their encoder."""
    encoder = SilentEncoder()
    monkeypatch.setattr(silence, "load_encoder", lambda *_: encoder)
    return encoder
