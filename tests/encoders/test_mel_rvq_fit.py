import json
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_helpers import music
from safetensors import safe_open

from audioprep.encoders.mel import LogMel
from audioprep.encoders.mel_rvq import FORMAT
from audioprep.encoders.mel_rvq_fit import MelRvqWeights, fit_mel_rvq
from audioprep.encoders.rvq import ResidualVQ
from audioprep.errors import UsageError


def test_same_audio_same_bytes(fitted: MelRvqWeights, weights: Path, tmp_path: Path):
    again = fit_mel_rvq((music(10.0, seed) for seed in range(4)), num_codebooks=3, codebook_size=32, dim=48)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_another_seed_gives_other_codebooks(fitted: MelRvqWeights):
    blocks = (music(10.0, seed) for seed in range(4))
    other = fit_mel_rvq(blocks, num_codebooks=1, codebook_size=32, dim=48, seed=1)
    assert not torch.equal(other.tensors["codebooks"][0], fitted.tensors["codebooks"][0])


def test_file_says_where_it_comes_from(fitted: MelRvqWeights, weights: Path):
    with safe_open(weights, framework="numpy") as file:
        provenance = json.loads(file.metadata()[FORMAT])
    assert provenance["seed"] == 0
    assert provenance["frames_seen"] == fitted.report.frames_seen == 4 * 248
    assert len(provenance["codebooks"]) == 3


def test_report_agrees_with_the_weights(fitted: MelRvqWeights):
    tensors = fitted.tensors
    frames = torch.cat([LogMel("cpu")(torch.from_numpy(music(10.0, s)[:, : 248 * 960 + 1808]))[0] for s in range(4)])
    normal = (frames - tensors["mean"].repeat(4)) / tensors["std"].repeat(4)
    assert float(normal.view(-1, 128).mean(0).abs().max()) < 1e-3
    assert float((normal.view(-1, 128).std(0) - 1).abs().max()) < 1e-2
    basis = tensors["projection"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(48), atol=1e-5, rtol=0)
    energy = float(normal.square().sum())
    rows = normal @ basis
    assert fitted.report.projected_variance == pytest.approx(float(rows.square().sum()) / energy, abs=1e-4)
    vq = ResidualVQ(tensors["codebooks"].float())
    rebuilt = vq.decode(vq.encode(rows)) @ basis.T
    explained = 1 - float((normal - rebuilt).square().sum()) / energy
    assert fitted.report.codebooks[-1].explained_variance == pytest.approx(explained, abs=1e-4)
    assert fitted.report.codebooks[-1].explained_variance < fitted.report.projected_variance


def test_sample_is_bounded(fitted: MelRvqWeights):
    report = fit_mel_rvq([music(10.0, 0)], num_codebooks=1, codebook_size=8, max_frames=100).report
    assert (report.frames_seen, report.frames_used) == (248, 100)


def test_too_little_audio_is_refused():
    with pytest.raises(UsageError, match="23 frames of 40 ms cannot fill 64 codewords; pass more audio"):
        fit_mel_rvq([music(1.0, 0), np.zeros((1, 500), np.float32)], codebook_size=64)
