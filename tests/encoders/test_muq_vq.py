from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_helpers import RATE, music
from muq import MuQ
from muq_helpers import DEPTH, DIM, plain, save_muq
from numpy.typing import NDArray
from torch import Tensor

from audioprep.encoders import muq, muq_vq
from audioprep.encoders.vq import save_codebook
from audioprep.errors import InputError, UsageError
from audioprep.stages.encode import encode_samples

SIZE = 129


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("muq")
    save_muq(path)
    return path


@pytest.fixture(scope="module")
def upstream(folder: Path) -> MuQ:
    return MuQ.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def codewords(upstream: MuQ) -> Tensor:
    """Hidden states of some music, each a little off."""
    hidden = torch.from_numpy(plain(upstream, music(10.0, 5)))
    random = torch.Generator().manual_seed(0)
    return hidden[torch.randperm(len(hidden), generator=random)[:SIZE]] * (
        0.8 + 0.4 * torch.rand(SIZE, 1, generator=random)
    )


def load(folder: Path, codebook: Path, **settings: Any) -> muq_vq.MuQVQ:
    return muq_vq.load(muq_vq.Settings(weights=str(folder), codebook=codebook, **settings))


def facts(folder: Path, **changes: Any) -> dict[str, Any]:
    spec = muq.describe(muq.Settings(weights=str(folder)))
    return {"encoder": "muq", "weights": spec.fingerprint, "layer": DEPTH, "distance": "euclidean"} | changes


def distances(upstream: MuQ, sound: NDArray[np.float32], codewords: Tensor, distance: str) -> NDArray[np.float64]:
    """From each frame of upstream's to each codeword, `[F, N]`."""
    hidden, codewords = torch.from_numpy(plain(upstream, sound)).double(), codewords.double()
    if distance == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(hidden[:, None], codewords[None], dim=2).numpy()
    return torch.cdist(hidden, codewords).numpy()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_tokens_are_the_nearest_codewords_to_what_upstream_gives(
    distance: str, upstream: MuQ, folder: Path, codewords: Tensor, tmp_path: Path
):
    save_codebook(codewords, facts(folder, distance=distance), tmp_path / "codebook.safetensors")
    encoder = load(folder, tmp_path / "codebook.safetensors")
    sound = music(20.0, 3)
    tokens = encode_samples(encoder, sound)
    assert tokens.shape == (500, 1) and np.issubdtype(tokens.dtype, np.signedinteger)
    found = distances(upstream, sound, codewords, distance)
    is_nearest = tokens[:, 0] == found.argmin(1)
    np.testing.assert_allclose(np.take_along_axis(found, tokens, 1)[:, 0], found.min(1), rtol=1e-5)
    assert is_nearest.mean() > 0.99 and len(np.unique(tokens)) > 15
    spec = encoder.spec
    assert (spec.name, spec.kind, spec.num_codebooks, spec.codebook_size, spec.dim) == (
        "muq-vq",
        "tokens",
        1,
        SIZE,
        None,
    )
    assert spec.settings["distance"] == distance


def test_both_distances_differ(folder: Path, codewords: Tensor, upstream: MuQ):
    euclidean, cosine = (distances(upstream, music(20.0, 3), codewords, name) for name in ("euclidean", "cosine"))
    assert (euclidean.argmin(1) != cosine.argmin(1)).mean() > 0.1


def vector_quantize_pytorch(codewords: Tensor) -> dict[str, Any]:
    """What its `VectorQuantize.state_dict()` has, as SongBloom's Japanese fork saves it."""
    return {
        "state_dict": {
            "_codebook.initted": torch.tensor([True]),
            "_codebook.cluster_size": torch.ones(1, len(codewords)),
            "_codebook.embed_avg": torch.zeros_like(codewords)[None],
            "_codebook.embed": codewords[None],
        },
        "config": {"codebook_size": len(codewords), "decay": 0.99, "model_id": "OpenMuQ/MuQ-large-msd-iter"},
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("codebook.pt", vector_quantize_pytorch),
        ("codebook.pth", lambda codewords: vector_quantize_pytorch(codewords)["state_dict"]),
        ("codebook.bin", lambda codewords: codewords),
        ("embedding.pt", lambda codewords: {"embedding.weight": codewords.half()}),
        ("quantizer.pt", lambda codewords: {"vq": {"embedding.weight": codewords}}),
    ],
)
def test_codebooks_of_other_tools(name: str, content: Any, folder: Path, codewords: Tensor, tmp_path: Path):
    codewords = codewords.half().float()
    made = content(codewords)
    torch.save(made, tmp_path / name)
    save_codebook(codewords, {}, tmp_path / "ours.safetensors")
    sound = music(4.0, 3)
    ours, other = (encode_samples(load(folder, tmp_path / file), sound) for file in ("ours.safetensors", name))
    np.testing.assert_array_equal(ours, other)


def test_safetensors_of_other_tools(folder: Path, codewords: Tensor, tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"vq._codebook.embed": codewords[None].contiguous()}, tmp_path / "codebook.safetensors")
    settings = muq_vq.Settings(
        weights=str(folder), codebook=tmp_path / "codebook.safetensors", layer=1, distance="cosine"
    )
    assert muq_vq.describe(settings).codebook_size == SIZE
    assert muq_vq.describe(settings).settings["layer"] == 1


def test_what_the_codebook_was_fitted_with_is_the_default(folder: Path, codewords: Tensor, tmp_path: Path):
    path = tmp_path / "codebook.safetensors"
    save_codebook(codewords, facts(folder, layer=2, distance="cosine"), path)
    spec = muq_vq.describe(muq_vq.Settings(weights=str(folder), codebook=path))
    assert (spec.settings["layer"], spec.settings["distance"]) == (2, "cosine")


def test_another_codebook_is_another_spec(folder: Path, codewords: Tensor, tmp_path: Path):
    specs = []
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        save_codebook(codewords + number, facts(folder), path)
        specs.append(muq_vq.describe(muq_vq.Settings(weights=str(folder), codebook=path)))
    assert specs[0] != specs[1]


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"layer": 1}, "was fitted to layer 3, and this is layer 1; leave the setting out"),
        ({"weights": "ab" * 32}, {}, "was fitted to weights with sha256 abababababab…, and this is weights with"),
        ({}, {"distance": "cosine"}, "was fitted to distance euclidean, and this is distance cosine"),
        ({"layer": 9}, {}, "has hidden states 0 to 3, and layer is 9"),
        ({"distance": "hamming"}, {}, "a distance that is not known here: hamming"),
    ],
)
def test_a_codebook_that_was_fitted_to_something_else(
    changes: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    folder: Path,
    codewords: Tensor,
    tmp_path: Path,
    upstream: MuQ,
):
    path = tmp_path / "codebook.safetensors"
    save_codebook(codewords, facts(folder, **changes), path)
    with pytest.raises(UsageError, match=message):
        muq_vq.describe(muq_vq.Settings(weights=str(folder), codebook=path, **settings))


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo never",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"codebook": torch.zeros(129, 16)}, rf"codewords have 16 dimensions, and hidden states of .* have {DIM}"),
        ({"weights": torch.zeros(129, DIM)}, r"holds no codebook \(weights \[129, 32\]\)"),
        ({"embed": torch.zeros(2, 129, DIM)}, "holds no codebook"),
        ({"0.embed": torch.zeros(129, DIM), "1.embed": torch.zeros(129, DIM)}, "holds several codebooks"),
        ([1, 2], r"holds no codebook \(nothing\)"),
        ({"codebook": torch.full((129, DIM), torch.nan)}, "some of its codewords are not finite"),
        (
            {"codebook": Malicious()},
            "is a pickle that wants to call .*system, and no code",
        ),
    ],
    ids=["dimensions", "name", "stack", "several", "no tensors", "NaN", "code"],
)
def test_a_file_that_is_no_codebook(content: Any, message: str, folder: Path, tmp_path: Path):
    torch.save(content, tmp_path / "codebook.pt")
    with pytest.raises(UsageError, match=message) as refused:
        load(folder, tmp_path / "codebook.pt")
    assert "codebook.pt" in str(refused.value)


def test_a_codebook_that_is_torn_or_missing(folder: Path, codewords: Tensor, tmp_path: Path):
    path = tmp_path / "codebook.safetensors"
    with pytest.raises(UsageError, match="there is no such codebook; make one with `audioprep fit muq-vq`"):
        load(folder, path)
    save_codebook(codewords, facts(folder), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="codebook.safetensors: cannot be read as a codebook"):
        load(folder, path)
    with pytest.raises(UsageError, match="muq-vq: needs a codebook: --set codebook=FILE"):
        muq_vq.describe(muq_vq.Settings(weights=str(folder)))


def test_what_is_not_finite_becomes_a_failure(folder: Path, codewords: Tensor, tmp_path: Path):
    save_codebook(codewords, facts(folder), tmp_path / "codebook.safetensors")
    encoder = load(folder, tmp_path / "codebook.safetensors", window_seconds=2.0, overlap_seconds=0.2)
    sound = music(4.0, 3).copy()
    sound[0, 3 * RATE] = np.inf
    with pytest.raises(InputError, match="muq-vq gave values that are not finite at 2.0 s"):
        encode_samples(encoder, sound)


def test_silence_and_a_single_sample_have_tokens(folder: Path, codewords: Tensor, tmp_path: Path):
    save_codebook(codewords, facts(folder), tmp_path / "codebook.safetensors")
    encoder = load(folder, tmp_path / "codebook.safetensors")
    assert len(encode_samples(encoder, np.zeros((1, RATE), np.float32))) == 25
    assert len(encode_samples(encoder, music(4.0, 3)[:, :1])) == 1
