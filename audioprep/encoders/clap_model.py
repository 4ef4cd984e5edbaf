"""The two towers of `transformers.ClapModel`, each loaded when it is needed.

Shapes: `B` clips or texts, `N` samples of a clip, `L` tokens of a text, `D` dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapAudioModelWithProjection, ClapConfig, ClapTextModelWithProjection
from transformers.modeling_utils import no_init_weights
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioSelfAttention

from audioprep.encoders.checkpoints import load_strict, load_tensors
from audioprep.encoders.clap_checkpoint import Checkpoint
from audioprep.encoders.clap_features import LogMel
from audioprep.encoders.clap_keys import laion_config, laion_features, laion_state, to_transformers
from audioprep.errors import UsageError

_TOWERS = ("audio_model.", "audio_projection.", "text_model.", "text_projection.", "logit_scale_")
_FUSION = ("audio_model.audio_encoder.patch_embed.fusion_model.", "audio_model.audio_encoder.patch_embed.mel_conv2d.")
_CONSTANT = ("relative_position_index", "position_ids", "token_type_ids")  # not in every checkpoint


class ClapTowers:
    """CLAP as transformers has it.

    Of a fused checkpoint, the layers that fuse crops of a long recording are left out: no clip is longer than what the
    model hears at once, and for such clips LAION's own model does not use them either.

    Args:
        checkpoint: where the weights are.
        device: the towers compute there.

    Raises:
        UsageError: the weights do not fit their configuration, or cannot be read safely.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint, self._device = checkpoint, device
        config, tensors, features = _read(checkpoint)
        config.audio_config.enable_fusion = False
        tensors = {name: value for name, value in tensors.items() if not name.startswith(_FUSION)}
        self._audio = _build(ClapAudioModelWithProjection, config.audio_config, "audio_", tensors, checkpoint)
        for layer in self._audio.modules():
            if isinstance(layer, ClapAudioLayer):
                _speed_up(layer)
        self._audio.to(device)
        self._log_mel = LogMel(features).to(device)
        self._text: Any = None

    def audio(self, clips: Tensor) -> Tensor:
        """float32 `[B, N]` to `[B, D]`."""
        return self._audio(input_features=self._log_mel(clips)[:, None]).audio_embeds

    def text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 `[B, L]` each, to `[B, D]`; the first call loads the text tower."""
        if self._text is None:
            config, tensors, _ = _read(self._checkpoint)
            self._text = _build(ClapTextModelWithProjection, config.text_config, "text_", tensors, self._checkpoint)
            self._text.to(self._device)
        return self._text(input_ids=input_ids, attention_mask=attention_mask).text_embeds


def _read(checkpoint: Checkpoint) -> tuple[ClapConfig, dict[str, Tensor], Any]:
    """Configuration, tensors by the names of transformers, and features."""
    content = load_tensors(checkpoint.path)
    if checkpoint.config is not None:
        if unknown := sorted(str(name) for name in content if not str(name).startswith(_TOWERS)):
            raise UsageError(f"{checkpoint.path}: holds {unknown[0]}, which no ClapModel has; give other weights")
        return ClapConfig.from_dict(checkpoint.config), content, checkpoint.features
    state = laion_state(content, checkpoint.path)
    try:
        config, features = laion_config(state), laion_features(state)
    except KeyError as error:
        raise UsageError(
            f"{checkpoint.path}: lacks {error}, which every CLAP of LAION's has; fetch it again"
        ) from error
    if config["projection_dim"] != checkpoint.dim:
        raise UsageError(
            f"{checkpoint.path}: gives {config['projection_dim']} dimensions, and every CLAP of LAION's 512"
        )
    return ClapConfig(**config), to_transformers(state), features


def _build(
    tower: Callable[[Any], Any], config: Any, prefix: str, tensors: dict[str, Tensor], checkpoint: Checkpoint
) -> Any:
    """One tower, with the tensors that have its prefix."""
    try:
        with no_init_weights():
            model = tower(config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(f"{checkpoint.path}: its configuration makes no ClapModel: {error}; fetch it again") from error
    constants = {name: value for name, value in model.named_buffers() if name.endswith(_CONSTANT)}
    own = {name: value for name, value in tensors.items() if name.startswith(prefix)}
    load_strict(model, own | constants, checkpoint.path)
    return model.eval()


def _speed_up(layer: Any) -> None:
    """Lets a layer of the audio tower compute the same with fewer passes over memory."""
    height, width = layer.input_resolution
    layer.set_shift_and_window_size((height, width))
    size = layer.window_size
    mask = layer.get_attn_mask(-(-height // size) * size, -(-width // size) * size, torch.float32, torch.device("cpu"))
    layer.attention.self = WindowAttention(layer.attention.self, mask)
    layer.get_attn_mask = lambda *_, **__: None  # it would be made again for every clip


class WindowAttention(nn.Module):
    """What `ClapAudioSelfAttention` computes, with one product for queries, keys and values, and biases made once.

    Args:
        attention: has the weights.
        mask: `[W, P, P]` of the `W` windows, of `P` places each, of a shifted layer; None: every place sees all others.
    """

    weight: Tensor
    offset: Tensor | None
    bias: Tensor

    def __init__(self, attention: ClapAudioSelfAttention, mask: Tensor | None) -> None:
        super().__init__()
        places = prod(attention.window_size)
        parts = (attention.query, attention.key, attention.value)
        index: Any = attention.relative_position_index
        bias = attention.relative_position_bias_table.detach()[index.flatten()].view(places, places, -1)
        bias = bias.permute(2, 0, 1)[None]
        self._heads = attention.num_attention_heads
        self.register_buffer("weight", torch.cat([part.weight.detach() for part in parts]))
        offsets = [part.bias.detach() for part in parts if part.bias is not None]
        self.register_buffer("offset", torch.cat(offsets) if offsets else None)
        self.register_buffer("bias", (bias if mask is None else bias + mask[:, None]).contiguous())

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        """`[B W, P, C]` to the same."""
        windows, places, width = hidden_states.shape
        together = F.linear(hidden_states, self.weight, self.offset).view(windows, places, 3, self._heads, -1)
        query, key, value = together.permute(2, 0, 3, 1, 4)
        bias = self.bias if len(self.bias) == 1 else self.bias.repeat(windows // len(self.bias), 1, 1, 1)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(windows, -1, -1, -1))
        return (seen.transpose(1, 2).reshape(windows, places, width),)
