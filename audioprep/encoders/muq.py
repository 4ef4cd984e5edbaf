"""The encoder `muq`: hidden states of MuQ, 25 frames a second; `muq-vq` makes tokens of them.

MuQ (Zhu et al. 2025, "MuQ: Self-Supervised Music Representation Learning with Mel Residual Vector Quantization", arXiv
2501.01108) is a stack of conformers (Gulati et al. 2020, arXiv 2005.08100) over a mel spectrogram at 24 kHz. It is
run by the package muq; hidden state 0 is the input of the first conformer, `layer` the output of conformer `layer`,
and the last one is also normalized: what MuQ itself calls the last hidden state.

Attention hears all of a file, so no chunk of it gives quite what the whole file would give. It is cut into windows of
`window_seconds`, each heard with `overlap_seconds` more on both sides, of which nothing is kept. A file that is no
longer than `window_seconds` gives what upstream's own call on it gives. MuQ was trained on 30 s at a time.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import first_of, load_strict, load_tensors, local_files, sha256_of_weights
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLE_RATE = 24_000
_PAD = 1024  # half of the Fourier transform's window
_LEAST = _PAD + 1  # samples that can be reflected so far
_WEIGHTS = "model.safetensors|pytorch_model.bin"
_FEATURE = "melspec_2048"


class Settings(TorchSettings):
    """Settings of `muq`."""

    layer: int | None = Field(default=None, ge=0, description="Which hidden state, from 0. Default: the last.")
    window_seconds: float = Field(default=30.0, ge=1.0, description="A longer file is cut into pieces of this.")
    overlap_seconds: float = Field(default=2.0, ge=0.0, description="Heard before and after each piece.")


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; reads config.json and hashes the weights, and does not import torch.

    Raises:
        UsageError: the weights are missing or not of MuQ, or there is no such layer.
    """
    config_path, weights = _locate(settings)
    config = _read_config(config_path)
    layer = config["encoder_depth"] if settings.layer is None else settings.layer
    if layer > config["encoder_depth"]:
        raise UsageError(f"{settings.weights}: has hidden states 0 to {config['encoder_depth']}, and layer is {layer}")
    hop = config["hop_length"] * (100 // config["label_rate"])
    window = round(settings.window_seconds * SAMPLE_RATE / hop) * hop
    context = round(settings.overlap_seconds * SAMPLE_RATE / hop) * hop
    return EncoderSpec(
        name="muq",
        kind="latents",
        sample_rate=SAMPLE_RATE,
        channels=1,
        hop_length=hop,
        window=window,
        left_context=context,
        right_context=context,
        batch_size=batch_size(settings, cpu=1, cuda=8),
        fingerprint=sha256_of_weights([weights]),
        dim=config["encoder_dim"],
        settings=numeric_settings(settings)
        | {
            "layer": layer,
            "muq": version("muq"),
            "transformers": version("transformers"),
        },
    )


def load(settings: Settings) -> MuQHidden:
    """Loads the weights onto the device.

    Raises:
        UsageError: as `describe`; or the weights cannot be read or do not fit config.json.
        SystemFault: the device cannot be used.
    """
    return MuQHidden(describe(settings), settings)


class MuQHidden(TorchEncoder):
    """Hidden states of MuQ; made by `load`."""

    def __init__(self, spec: EncoderSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        layer = spec.settings["layer"]
        assert isinstance(layer, int)
        self._model = _load_model(settings, layer).to(self.device).eval().requires_grad_(False)
        self._frames = spec.length // spec.hop_length
        self._dim = self._model.conv.linear.out_features
        # On a CPU nothing is computed of what lies outside the file: a short file costs what it is long. A GPU (and a
        # compiled model) wants one shape, in which all that lies outside is masked.
        self._by_row = self.device.type == "cpu" and not settings.compile
        self._ends = threading.local()
        if not self._by_row:
            self._prepare_masks()

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        """
        Returns:
            `[B, window / hop, D]`.
        """
        samples, first = samples[:, 0], valid[:, 0]
        length = (valid[:, 1] - first).clamp(min=_LEAST)  # beyond its own samples a window is silent
        if not self._by_row:
            return self._middle(self._masked(samples, first, length), first, length)
        out = samples.new_zeros(len(samples), self.spec.window // self.spec.hop_length, self._dim)
        for row in range(len(samples)):
            if valid[row, 1]:  # else it only fills the batch
                start, count = first[row : row + 1], length[row : row + 1]
                own = samples[row : row + 1, start : start + count]
                hidden = self._model.conformer(self._model.conv(self._mel(own, start - start, count)))
                out[row] = self._middle(hidden.last_hidden_state, start, count)[0]
        return out

    def _masked(self, samples: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """Hidden states of windows `[B, T]`, from their own samples' first on: `[B, F, D]`."""
        self._ends.length = length
        try:
            features = self._model.conv(self._mel(samples, first, length))
            return self._model.conformer(features, attention_mask=self._own(length, self._frames)).last_hidden_state
        finally:
            self._ends.length = None

    def _mel(self, samples: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """The normalized log-mel spectrogram of windows `[B, T]`, reflected where their own samples begin and end."""
        import torch

        place = torch.arange(-_PAD, samples.shape[1] + _PAD, device=samples.device).abs()
        last = length[:, None] - 1
        reflected = samples.gather(1, first[:, None] + (last - (last - place).abs()).clamp(min=0))
        with torch.autocast(samples.device.type, enabled=False):  # its filters are sums of hundreds of products
            return self._model.normalize(self._model.preprocessing(reflected, [_FEATURE]))[_FEATURE]

    def _middle(self, hidden: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """Of each window the frames that are its own. A last frame of under 10 ms, for which MuQ has none, repeats."""
        import torch

        spec = self.spec
        frames = torch.arange(spec.window // spec.hop_length, device=hidden.device)
        place = frames + ((spec.left_context - first) // spec.hop_length)[:, None]
        place = torch.minimum(place, self._count(length, self._frames)[:, None] - 1)
        return hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[2]))

    def _count(self, length: Tensor, frames: int) -> Tensor:
        """How many of a layer's `frames` in a whole window belong to `length` samples `[B]`."""
        mel_frames = length // self._model.hop_length
        ratio = self.spec.length // self._model.hop_length // frames
        return -(-mel_frames // ratio)

    def _own(self, length: Tensor, frames: int) -> Tensor:
        """Which of a layer's frames belong to the file: bool `[B, frames]`."""
        import torch

        return torch.arange(frames, device=length.device) < self._count(length, frames)[:, None]

    def _prepare_masks(self) -> None:
        """At a file's end every padded convolution sees zeros: so its input is zero beyond it."""
        from torch import nn

        for module in self._model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)) and any(module.padding):  # pyright: ignore
                module.register_forward_pre_hook(self._zero_beyond)
        # It is kept for one length, and two threads would compute it at once.
        positions = self._model.conformer.embed_positions
        if positions is not None:
            positions(next(self._model.parameters()).new_zeros(1, self._frames, self._dim))

    def _zero_beyond(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        layer = inputs[0]
        own = self._own(self._ends.length, layer.shape[-1])
        # In place: nothing else reads what lies outside the file.
        layer.masked_fill_(~own.view(len(own), *[1] * (layer.dim() - 2), -1), 0.0)


def _locate(settings: Settings) -> tuple[Path, Path]:
    """Where config.json and the weights are."""
    found = local_files(settings.weights, ["config.json", _WEIGHTS], encoder="muq")
    if found.is_file():
        return found.with_name("config.json"), found
    return found / "config.json", first_of(found, _WEIGHTS)


def _read_config(path: Path) -> dict[str, Any]:
    """What of config.json is needed, with the defaults of `muq.MuQConfig`."""
    defaults: dict[str, Any] = {"label_rate": 25, "hop_length": 240, "n_mels": 128, "conv_dim": 512}
    defaults |= {"encoder_dim": 1024, "encoder_depth": 12, "stat": {}, "w2v2_config": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        config = {name: type(default)(found.get(name, default)) for name, default in defaults.items()}
        missing = {f"{_FEATURE}_mean", f"{_FEATURE}_std"} - config["stat"].keys()
        if missing or 100 // config["label_rate"] not in (2, 4):
            raise ValueError(f"no {', '.join(sorted(missing)) or 'label_rate of 25 or 50'}")
    except (OSError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UsageError(f"{path}: is no configuration of MuQ ({error}); give weights of MuQ") from error
    return config


def _load_model(settings: Settings, layer: int) -> Any:
    """`muq`'s model up to hidden state `layer`; what lies above it is neither built nor loaded."""
    from torch import nn

    config_path, weights = _locate(settings)
    config = _read_config(config_path)
    is_last = layer == config["encoder_depth"]
    with _own_random_numbers():
        model = _build(config | {"encoder_depth": layer, "features": []}, config_path)
    model.preprocessor_melspec_2048.mel_stft.spectrogram.center = False  # padded here, at the file's true end
    # What is used of MuQ: not its heads, nor a convolution that it builds and never applies.
    used = nn.Module()
    used.conv, used.conformer = model.conv, model.conformer
    model.conformer.pos_conv_embed = None
    if not is_last:
        model.conformer.layer_norm = nn.Identity()
    wanted = used.state_dict()
    prefixes = {key.rpartition(".")[0] for key in wanted}
    tensors = {key.removeprefix("model."): tensor for key, tensor in load_tensors(weights).items()}
    load_strict(used, {key: tensors[key] for key in tensors if key.rpartition(".")[0] in prefixes}, weights)
    return model


def _build(config: dict[str, Any], path: Path) -> Any:
    from muq import MuQ, MuQConfig

    try:
        return MuQ(MuQConfig(**config)).model
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(f"{path}: MuQ cannot be built from it ({error}); give weights of MuQ") from error


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """MuQ seeds the process's random numbers while it is built; afterwards they are what they were."""
    import torch

    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
