from pathlib import Path

import pytest
import torch
from encoder_helpers import music

from audioprep.encoders import mel_rvq
from audioprep.encoders.mel_rvq_fit import MelRvqWeights, fit_mel_rvq


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """As in a worker; and threads of tests that run side by side do not wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fitted() -> MelRvqWeights:
    return fit_mel_rvq((music(10.0, seed) for seed in range(4)), num_codebooks=3, codebook_size=32, dim=48)


@pytest.fixture(scope="session")
def weights(fitted: MelRvqWeights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mel-rvq") / "weights.safetensors"
    fitted.save(path)
    return path


@pytest.fixture(scope="session")
def encoder(weights: Path) -> mel_rvq.MelRvq:
    return mel_rvq.load(mel_rvq.Settings(weights=weights))
