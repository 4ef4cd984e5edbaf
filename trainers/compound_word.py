"""A transformer with linear attention over EMOPIA's compound words, which writes piano music for an emotion and a key.

The model is the Compound Word Transformer (Hsiao et al. 2021, arXiv 2101.02402) as EMOPIA conditions it (Hung et al.
2021, arXiv 2108.01374): the classes of a word are embedded, joined and projected; from what the layers say of a word,
the type of the next one is told first, and all other classes from both. Attention is linear (Katharopoulos et al.
2020, arXiv 2006.16236), so a word costs the same wherever it stands. The file is read from top to bottom: settings,
attention, model, loss; then the grammar of words, and generation. The loop is that of all trainers.

    python trainers/compound_word.py SHARDS --out RUN --task-type 4-cls
    torchrun --nproc-per-node 8 trainers/compound_word.py SHARDS --out RUN
    python trainers/compound_word.py generate RUN/best.pt --out song.mid --emotion 1 --key C

Shapes: `B` songs, `F` words, `K` classes, `H` heads of `D` dimensions. Ids are those of the full vocabulary.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from audioprep.encoders.device import resolve_device
from audioprep.errors import UsageError
from audioprep.shards.dataset import open_dataset
from audioprep.storage.fields import PlaceField
from audioprep.storage.places import Place
from audioprep.symbolic.decode import decode_words
from audioprep.symbolic.tokenizers import EMOPIA
from audioprep.symbolic.vocabulary import (
    BAR_WORD,
    CLASSES,
    EMOTION,
    EOS,
    KEY,
    KEY_CLASS,
    METRICAL,
    NOTE,
    full_vocabulary,
)
from audioprep.training import Loss, TrainerSettings, command_line, fit, training_device
from audioprep.training_files import read_checkpoint

COLUMN = "midi_tokens"
NAMES = (*CLASSES, KEY_CLASS)
BEAT, TYPE, EMOTION_CLASS = NAMES.index("bar-beat"), NAMES.index("type"), NAMES.index("emotion")
# Dimensions in which each class is embedded: as many as it has to say, as in EMOPIA's models; the key as the chord.
EMBEDDED = dict(zip(NAMES, (128, 256, 64, 32, 512, 128, 128, 128, 256), strict=True))
CHUNK = 64  # words that attend to each other as in a table; all before them are one state
Task = Literal["4-cls", "arousal", "valence", "ignore"]
# What becomes of no emotion and the four quadrants. Arousal: 1 is high, 2 low; valence: 1 is positive, 2 negative.
EMOTIONS = {"4-cls": (0, 1, 2, 3, 4), "arousal": (0, 1, 1, 2, 2), "valence": (0, 1, 2, 2, 1), "ignore": (0,) * 5}


class Settings(TrainerSettings):
    """Settings of the trainer `compound-word`."""

    steps: int = Field(default=50_000, ge=1, description="Steps of the optimizer in all.")
    lr: float = Field(default=1e-4, gt=0, description="Highest learning rate; it falls to a tenth along a cosine.")
    warmup: int = Field(default=500, ge=0, description="Steps in which the learning rate rises.")
    save_every: int = Field(default=500, ge=1, description="Steps between checkpoints.")
    task_type: Task = Field(default="4-cls", description="Emotion: 4-cls, arousal, valence, or ignore for none.")
    width: int = Field(default=512, ge=8, description="Dimensions of the model; a multiple of 2 and of heads.")
    depth: int = Field(default=12, ge=1, description="Layers.")
    heads: int = Field(default=8, ge=1, description="Attention heads.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Share of activations dropped in training.")
    max_words: int = Field(default=1024, ge=2, description="Words of a song that are used, from its beginning.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} is no multiple of 2 and of heads {self.heads}")
        return self


# What a checkpoint fixes; the other settings may change when a run goes on.
FIXED = ("batch_size", "width", "depth", "heads", "max_words", "seed", "task_type")


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal linear attention with the features `elu(x) + 1`: time and memory grow with `F`, not with its square.

    Chunks of words attend within themselves by a table, and to all chunks before by the sum of their `k v`. Sums run
    in float32 whatever the inputs are: they are of up to `F` terms.

    Args:
        q, k, v: `[B, H, F, D]`.

    Returns:
        `[B, H, F, D]`, of the type of `v`.
    """
    frames = q.shape[2]
    padding = (0, 0, 0, -frames % CHUNK)
    with torch.autocast(q.device.type, enabled=False):
        # A last column of ones sums up the weights; words of padding come last, where nobody looks back at them.
        ones = F.pad(v.float(), (0, 1), value=1.0)
        chunks = (F.pad(x, padding).unflatten(2, (-1, CHUNK)) for x in (features(q), features(k), ones))
        q, k, ones = chunks
        states = k.transpose(-1, -2) @ ones
        before = states.cumsum(2) - states
        mixed = (q @ k.transpose(-1, -2)).tril() @ ones + q @ before
    mixed = mixed.flatten(2, 3)[:, :, :frames]
    return (mixed[..., :-1] / mixed[..., -1:]).to(v.dtype)


def features(x: Tensor) -> Tensor:
    """What stands for the exponential of softmax attention: positive, in float32."""
    return F.elu(x.float()) + 1.0


class Block(nn.Module):
    """Linear attention and a feed-forward layer, each behind a norm and beside a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """All words `[B, F, width]` at once."""
        mixed = linear_attention(*self._heads(x))
        return self._rest(x, mixed)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One word `[B, 1, width]` after those in `state` `[B, H, D, D + 1]`, to which it is added."""
        q, k, v = self._heads(x)
        state += features(k).transpose(-1, -2) @ F.pad(v.float(), (0, 1), value=1.0)
        mixed = features(q) @ state
        return self._rest(x, mixed[..., :-1] / mixed[..., -1:])

    def _heads(self, x: Tensor) -> Tensor:
        return self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.proj(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class CompoundWordModel(nn.Module):
    """Embeddings of the classes joined, blocks, a head for the next word's type, and one for each class beside it."""

    def __init__(self, sizes: Sequence[int], settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        width, depth = settings.width, settings.depth
        embedded = [EMBEDDED[name] for name in NAMES[: len(sizes)]]
        self.embeddings = nn.ModuleList(nn.Embedding(size, dim) for size, dim in zip(sizes, embedded, strict=True))
        self.joined = nn.Linear(sum(embedded), width)
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.dropout) for _ in range(depth))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(settings.dropout)
        self.with_type = nn.Linear(width + EMBEDDED["type"], width)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.register_buffer("positions", sinusoids(settings.max_words, width), persistent=False)

    def forward(self, words: Tensor, types: Tensor) -> list[Tensor]:
        """Logits of what follows each word, `[B, F, size]` a class, told the types `[B, F]` that follow."""
        x = self._embedded(words, 0)
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x), types)

    def new_states(self, device: torch.device) -> Tensor:
        """Of no words, for one song: zeros `[layers, 1, H, D, D + 1]`, in float32."""
        heads = self.settings.heads
        dim = self.settings.width // heads
        return torch.zeros(self.settings.depth, 1, heads, dim, dim + 1, device=device)

    def step(self, word: Tensor, place: int, states: Tensor) -> Tensor:
        """What is said of one word `[B, K]` after those in `states` `[layers, B, H, D, D + 1]`: `[B, 1, width]`."""
        x = self._embedded(word[:, None], place)
        for block, state in zip(self.blocks, states, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, state)
        return self.norm(x)

    def logits(self, said: Tensor, types: Tensor) -> list[Tensor]:
        """Of each class, from what is said of the words before, and the types."""
        both = self.with_type(torch.cat([said, self.embeddings[TYPE](types)], -1))
        return [head(said if place == TYPE else both) for place, head in enumerate(self.heads)]

    def _embedded(self, words: Tensor, place: int) -> Tensor:
        found = [embedding(words[..., k]) for k, embedding in enumerate(self.embeddings)]
        positions = self.get_buffer("positions")[place : place + words.shape[1]]
        return self.dropout(self.joined(torch.cat(found, -1)) + positions)


def sinusoids(places: int, width: int) -> Tensor:
    """`[places, width]`, as in Vaswani et al. (2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(places)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def losses_of(network: nn.Module, words: Tensor, mask: Tensor) -> list[Tensor]:
    """Mean cross-entropy in nats of each class, over all words `[B, F, K]` but the first."""
    target = words[:, 1:].masked_fill(~mask[:, 1:, None], -100)
    logits = network(words[:, :-1], words[:, 1:, TYPE])
    return [F.cross_entropy(one.float().flatten(0, 1), target[..., k].flatten()) for k, one in enumerate(logits)]


def train(settings: Settings) -> dict[str, Any]:
    """Trains until `settings.steps`; the same call again goes on from the last checkpoint.

    Returns:
        see `audioprep.training.fit`; and the number of parameters.

    Raises:
        UsageError: no shard set with compound words, or a checkpoint of other settings.
    """
    sizes = class_sizes(settings.shards)
    fixed = settings.model_dump(include=set(FIXED)) | {"sizes": sizes}
    with training_device(settings.device) as device:
        emotions = torch.tensor(EMOTIONS[settings.task_type], device=device)

        def of_batch(network: nn.Module, batch: dict[str, Any]) -> Loss:
            words = batch[COLUMN][:, : settings.max_words + 1].to(device, copy=True)
            mask = batch[f"{COLUMN}_mask"][:, : settings.max_words + 1].to(device)
            words[..., EMOTION_CLASS] = emotions[words[..., EMOTION_CLASS]]
            losses = losses_of(network, words, mask)
            return Loss(torch.stack(losses).mean(), int(mask[:, 1:].sum()), dict(zip(NAMES, losses, strict=False)))

        torch.manual_seed(settings.seed)
        model = CompoundWordModel(sizes, settings).to(device)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        # A song's head, with emotion and key, is at its beginning: it is cut there, and not cropped anywhere.
        return fit(settings, fixed, model, of_batch, [COLUMN]) | {"parameters": parameters}


def class_sizes(shards: Place) -> list[int]:
    """How many values each class has, from `dataset.json`."""
    spec = open_dataset(shards).encoders.get(COLUMN, {})
    if spec.get("name") != EMOPIA:
        raise UsageError(f"{shards}: has no compound words; make them with `audioprep midi --tokenizer {EMOPIA}`")
    return spec["vocabulary_sizes"]


class Grammar:
    """Which words may follow, so that what is written is a score.

    First come emotion and key, then bars; in a bar, positions in their order, each with its notes; after a bar may come
    the end.

    Args:
        with_key: whether words have a key.
        emotion: id of the emotion that is asked for.
        key: id of the key that is asked for; None: any.
    """

    def __init__(self, with_key: bool, emotion: int, key: int | None) -> None:
        vocabulary = full_vocabulary(with_key)
        self.types: dict[Any, int] = {value: id_ for id_, value in enumerate(vocabulary["type"])}
        self._some = [list(range(1, len(values))) for values in vocabulary.values()]  # 0: has nothing to say
        self._asked = {EMOTION_CLASS: [emotion]} | ({} if key is None else {NAMES.index(KEY_CLASS): [key]})
        self._head = [EMOTION, KEY] if with_key else [EMOTION]
        beats = vocabulary["bar-beat"]
        self._bar = beats.index(BAR_WORD)
        positions = [id_ for id_ in self._some[BEAT] if id_ != self._bar]
        self._positions = sorted(positions, key=lambda id_: int(str(beats[id_]).removeprefix("Beat_")))
        self._left: list[int] = []  # positions that this bar may still have
        self._in_position = False
        self.bars = self.notes = 0

    def _types(self) -> list[int]:
        may_follow = [NOTE] if self._in_position else [EOS] if self.notes else []
        return [self.types[name] for name in (self._head[:1] or [METRICAL, *may_follow])]

    def choices(self, word: list[int], place: int) -> list[int]:
        """The ids that a class of the next word may have, after its type and then its bar-beat are chosen."""
        if place == TYPE:
            return self._types()
        name = NAMES[place]
        says = {
            EMOTION: name == "emotion",
            KEY: name == KEY_CLASS,
            METRICAL: name in ("tempo", "chord") and word[BEAT] != self._bar,
            NOTE: name in ("pitch", "duration", "velocity"),
        }
        if word[TYPE] == self.types[METRICAL] and place == BEAT:
            return [self._bar, *self._left]
        if any(word[TYPE] == self.types.get(kind) and holds for kind, holds in says.items()):
            return self._asked.get(place, self._some[place])
        return [0]

    def follow(self, word: list[int]) -> None:
        """Takes note of a word."""
        beat = word[BEAT]
        self._head = self._head[1:]
        self.notes += word[TYPE] == self.types[NOTE]
        if beat == self._bar:
            self.bars += 1
            self._left, self._in_position = self._positions, False
        elif beat:
            self._left, self._in_position = self._positions[self._positions.index(beat) + 1 :], True


class Generation(BaseModel):
    """Settings of `compound_word.py generate`."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: PlaceField = Field(description="Such as RUN/best.pt, or its URL.")
    out: Path = Field(description="The MIDI file to write.")
    emotion: int = Field(default=1, ge=1, le=4, description="Quadrant: 1 happy, 2 angry, 3 sad, 4 calm.")
    key: str | None = Field(default=None, description="Such as C, F# or, in minor, a. Default: the model chooses.")
    max_words: int | None = Field(default=None, ge=4, description="At most so many words. Default: as in training.")
    temperature: float = Field(default=1.2, gt=0, description="Over 1: more variety.")
    top_p: float = Field(default=0.9, gt=0, le=1, description="Only the likeliest values, with this share in all.")
    seed: int = Field(default=0, description="Of the choices.")
    device: str = Field(default="cpu", description="cpu, cuda, cuda:1, or auto.")


@torch.no_grad()
def generate(settings: Generation) -> dict[str, Any]:
    """Writes one song as MIDI.

    Returns:
        out, words, bars, notes.

    Raises:
        UsageError: no checkpoint of this trainer, or a key that it does not know.
    """
    device = torch.device(resolve_device(settings.device))
    model = load_model(settings.checkpoint, device)
    limit = min(settings.max_words or model.settings.max_words, model.settings.max_words)
    vocabulary = full_vocabulary(len(model.heads) == len(NAMES))
    keys = vocabulary.get(KEY_CLASS, ())[1:]
    if settings.key is not None and settings.key not in keys:
        known = f"it is one of {', '.join(map(str, keys))}" if keys else "the model was trained without keys"
        raise UsageError(f"--key {settings.key}: {known}")
    key = None if settings.key is None else keys.index(settings.key) + 1
    grammar = Grammar(bool(keys), EMOTIONS[model.settings.task_type][settings.emotion], key)
    torch.manual_seed(settings.seed)
    words: list[list[int]] = []
    states, said = model.new_states(device), torch.zeros(1, 1, model.settings.width, device=device)
    while len(words) < limit:
        word = [0] * len(model.heads)
        others = [place for place in range(len(word)) if place not in (TYPE, BEAT)]
        for places in ([TYPE], [BEAT, *others]):
            logits = model.logits(said, torch.tensor([[word[TYPE]]], device=device))
            for place in places:
                word[place] = choose(logits[place][0, 0], grammar.choices(word, place), settings)
        if word[TYPE] == grammar.types[EOS]:
            break
        grammar.follow(word)
        said = model.step(torch.tensor([word], device=device), len(words), states)
        words.append(word)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_bytes(decode_words(np.array(words), vocabulary).dumps_midi())
    counts = {"words": len(words), "bars": grammar.bars, "notes": grammar.notes}
    return {"out": str(settings.out)} | counts


def choose(logits: Tensor, allowed: list[int], settings: Generation) -> int:
    """Draws one of the allowed ids, from the likeliest that have `top_p` of the probability together."""
    chances, order = (logits.float()[allowed] / settings.temperature).softmax(0).sort(descending=True)
    chances = chances * (chances.cumsum(0) - chances < settings.top_p)
    return allowed[int(order[chances.multinomial(1)])]


def load_model(place: Place, device: torch.device) -> CompoundWordModel:
    """A trained model, as it generates.

    Raises:
        UsageError: the file is no checkpoint of this trainer.
    """
    try:
        state = read_checkpoint(place, device)
        settings, sizes = Settings(**state["settings"]), state["fixed"]["sizes"]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, UnpicklingError) as error:
        raise UsageError(f"{place}: is no checkpoint of compound-word; give one of a run, such as best.pt") from error
    model = CompoundWordModel(sizes, settings).to(device).eval()
    model.load_state_dict(state["model"])
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the settings as options, a summary as JSON on stdout; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "generate":
        return command_line(Generation, generate, "Writes a song as MIDI, for an emotion and a key.", argv[1:])
    return command_line(Settings, train, "Trains a transformer on compound words.", argv)


if __name__ == "__main__":
    sys.exit(main())
