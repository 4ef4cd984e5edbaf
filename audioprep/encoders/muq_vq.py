"""The encoder `muq-vq`: one token a frame, 25 a second, the nearest codeword to a hidden state of MuQ.

These are the sketch tokens of SongBloom (Yang et al. 2025, arXiv 2506.07634): MuQ's last hidden state and a single
vector quantizer. SongBloom's own codebook is not published, so `audioprep fit muq-vq` makes one, whose size has to be
that of the model which will read the tokens; a codebook of another tool does as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from pydantic import Field

from audioprep.encoders import muq
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import sha256_of_weights
from audioprep.encoders.vq import CodebookFile, Distance, VectorQuantizer, describe_codebook, load_codebook
from audioprep.errors import UsageError
from audioprep.storage.fields import PlaceField
from audioprep.storage.kept import kept_file

if TYPE_CHECKING:
    from torch import Tensor


class Settings(muq.Settings):
    """Settings of `muq-vq`. What is not given is as the codebook was fitted."""

    codebook: PlaceField | None = Field(
        default=None, description="A file of `audioprep fit muq-vq`, or of another tool; or its URL."
    )
    distance: Distance | None = Field(default=None, description="euclidean or cosine. Default: as it was fitted.")


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; does not import torch, but for a codebook that is a pickle.

    Raises:
        UsageError: as `muq.describe`; or there is no codebook, or it was not fitted to this.
    """
    file = _codebook(settings)
    if settings.layer is None and "layer" in file.facts:
        settings = settings.model_copy(update={"layer": file.facts["layer"]})
    hidden = muq.describe(settings)
    _check(file, settings, hidden)
    return replace(
        hidden,
        name="muq-vq",
        kind="tokens",
        num_codebooks=1,
        codebook_size=file.size,
        dim=None,
        settings=hidden.settings | {"distance": _distance(settings, file), "codebook": sha256_of_weights([file.path])},
    )


def load(settings: Settings) -> MuQVQ:
    """Loads weights and codebook onto the device.

    Raises:
        UsageError: as `describe`, or the weights or the codebook are damaged.
        SystemFault: the device cannot be used.
    """
    return MuQVQ(describe(settings), settings)


class MuQVQ(muq.MuQHidden):
    """Tokens of MuQ; made by `load`."""

    def __init__(self, spec: EncoderSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        file = _codebook(settings)
        self._vq = VectorQuantizer(load_codebook(file).to(self.device), _distance(settings, file))

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        """
        Returns:
            int64 `[B, window / hop, 1]`; -1 in all of a window with activations that are not finite.
        """
        import torch

        hidden = super().forward(samples, valid).float()
        # On a CPU a product of many rows is cut up by their number, and rounds accordingly: so one window at a time.
        pieces = hidden.unbind() if self.device.type == "cpu" else [hidden.flatten(0, 1)]
        with torch.autocast(self.device.type, enabled=False):
            ids = torch.cat([self._vq.encode(piece) for piece in pieces]).view(*hidden.shape[:2], 1)
        return ids.masked_fill(~hidden.isfinite().all(dim=(1, 2), keepdim=True), -1)


def _codebook(settings: Settings) -> CodebookFile:
    if settings.codebook is None:
        raise UsageError(
            "muq-vq: needs a codebook: --set codebook=FILE. Make one with `audioprep fit muq-vq`, of the size that the "
            "model has which will read the tokens."
        )
    return describe_codebook(kept_file(settings.codebook))


def _distance(settings: Settings, file: CodebookFile) -> Distance:
    distance = settings.distance or file.facts.get("distance", "euclidean")
    if distance not in get_args(Distance):
        raise UsageError(f"{file.path}: was fitted with a distance that is not known here: {distance}")
    return distance


def _check(file: CodebookFile, settings: Settings, hidden: EncoderSpec) -> None:
    """
    Raises:
        UsageError: the codebook belongs to something else.
    """
    if file.dim != hidden.dim:
        raise UsageError(
            f"{file.path}: its codewords have {file.dim} dimensions, and hidden states of {settings.weights} have "
            f"{hidden.dim}; give a codebook that was fitted to them"
        )
    for name, said, now in [
        ("layer", file.facts.get("layer"), hidden.settings["layer"]),
        ("weights", file.facts.get("weights"), hidden.fingerprint),
        ("distance", file.facts.get("distance"), _distance(settings, file)),
    ]:
        if said not in (None, now):
            raise UsageError(
                f"{file.path}: was fitted to {_what(name, said)}, and this is {_what(name, now)}; leave the setting "
                "out, or fit a codebook to this with `audioprep fit muq-vq`"
            )


def _what(name: str, value: object) -> str:
    return f"weights with sha256 {str(value)[:12]}…" if name == "weights" else f"{name} {value}"
