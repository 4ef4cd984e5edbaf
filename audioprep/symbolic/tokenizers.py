"""What turns a score into tokens: EMOPIA's compound words, or one of MidiTok's tokenizers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from audioprep.errors import InputError, Reason, UsageError
from audioprep.symbolic.song import MeterPolicy, apply_meter, song_of

if TYPE_CHECKING:
    from symusic.core import ScoreTick

EMOPIA = "emopia-cp"

ChordSource = Literal["auto", "markers", "none"]
KeySource = Literal["none", "estimate", "score"]
BeatSource = Literal["score", "track"]


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """What tokens of scores are; `dataset.json` keeps it.

    Attributes:
        name: `emopia-cp`, or of a tokenizer of MidiTok (`REMI`).
        vocabulary_sizes: ids of each of the `K` columns are in `[0, size)`.
        fingerprint: sha256 of all that decides which ids there are.
        settings: of the tokenizer.
        kind: `tokens`, as of audio, but with no rate: a frame is a word, and no stretch of time.
    """

    name: str
    vocabulary_sizes: tuple[int, ...]
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)
    kind: Literal["tokens"] = "tokens"

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain values."""
        sizes = self.vocabulary_sizes
        return asdict(self) | {
            "vocabulary_sizes": list(sizes),
            "num_codebooks": len(sizes),
            "codebook_size": max(sizes),
            "symbolic": True,
        }


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of one score, and what was found out about it.

    Attributes:
        tokens: integers `[F, K]`.
        track_frames: int32 `[tracks, 1]`: how many of the frames are of each track, where a tokenizer writes one
            track after the other; None where they are one stream.
        emotion: 1 to 4, 0 for none; None where the tokenizer knows none.
        key: such as `F#` or `a`; None where the tokenizer knows none.
    """

    tokens: NDArray[np.integer]
    track_frames: NDArray[np.int32] | None = None
    emotion: int | None = None
    key: str | None = None


class Tokenizer(Protocol):
    """Scores to tokens. It knows nothing of files, shards or processes."""

    @property
    def spec(self) -> TokenizerSpec: ...

    def encode(self, score: ScoreTick, uri: str) -> Encoded:
        """
        Raises:
            InputError: the score cannot be written in these tokens.
        """
        ...


@dataclass(frozen=True, slots=True)
class EmopiaSettings:
    """How scores become EMOPIA's compound words.

    Attributes:
        meter: see `apply_meter`.
        chords: `auto`: those of the markers, where there are none those that the notes sound like; `markers`; `none`.
        key: `none`: words of eight classes; `estimate`: the ninth says what the notes sound like; `score`: what the
            key signature says, where there is one.
        beats: `score`: those of the file; `track`: found in the onsets, for transcriptions, which have none.
    """

    meter: MeterPolicy = "keep"
    chords: ChordSource = "auto"
    key: KeySource = "none"
    beats: BeatSource = "score"


class EmopiaTokenizer:
    """Compound words in the full vocabulary, with eight or nine classes."""

    def __init__(self, settings: EmopiaSettings) -> None:
        from audioprep.symbolic.vocabulary import full_vocabulary

        self._settings = settings
        classes = full_vocabulary(settings.key != "none")
        values = asdict(settings)
        self.spec = TokenizerSpec(
            name=EMOPIA,
            vocabulary_sizes=tuple(len(of_class) for of_class in classes.values()),
            fingerprint=_digest({"version": 1, "classes": list(classes.items()), "settings": values}),
            settings=values | {"classes": list(classes)},
        )

    def encode(self, score: ScoreTick, uri: str) -> Encoded:
        from audioprep.symbolic.beats import track_beats
        from audioprep.symbolic.chords import Chords, marked_chords, recognise_chords
        from audioprep.symbolic.keys import estimate_key
        from audioprep.symbolic.names import read_name
        from audioprep.symbolic.vocabulary import key_name
        from audioprep.symbolic.words import encode_song

        wanted, song = self._settings, song_of(score, uri)
        song = track_beats(song) if wanted.beats == "track" else apply_meter(song, wanted.meter, uri)
        chords = Chords(np.empty(0), np.empty(0, np.int64))
        if wanted.chords != "none":
            chords = marked_chords(song)
        if wanted.chords == "auto" and not len(chords.ids):
            chords = recognise_chords(song)
        key = None
        if wanted.key != "none":
            key = (song.key if wanted.key == "score" else None) or estimate_key(song)
        emotion = read_name(uri).emotion
        words = encode_song(song, chords, emotion, key)
        return Encoded(words, emotion=emotion, key=None if key is None else key_name(*key))


class MidiTokTokenizer:
    """A tokenizer of MidiTok; its ids are MidiTok's own.

    Args:
        saved: what MidiTok's `save` writes: its class, configuration and, where it was trained, its model.
        meter: `reject`: other meters than 4/4 are an error; `keep`: MidiTok decides, which drops those that its
            vocabulary lacks.
    """

    def __init__(self, saved: str, meter: MeterPolicy) -> None:
        from audioprep.symbolic.miditok_files import load

        self._tokenizer = load(saved)
        self._meter: MeterPolicy = meter
        vocabulary = self._tokenizer.vocab
        of_model = self._tokenizer.vocab_size if self._tokenizer.is_trained else len(vocabulary)
        self.spec = TokenizerSpec(
            name=type(self._tokenizer).__name__,
            vocabulary_sizes=tuple(map(len, vocabulary)) if self._tokenizer.is_multi_voc else (of_model,),
            fingerprint=_digest({"saved": saved, "meter": meter}),
            settings={"meter": meter, "trained": self._tokenizer.is_trained, "file": "tokenizer.json"},
        )

    def encode(self, score: ScoreTick, uri: str) -> Encoded:
        if self._meter == "reject":
            meters = {(meter.numerator, meter.denominator) for meter in score.time_signatures}
            if any(numerator != denominator for numerator, denominator in meters):
                names = ", ".join(f"{numerator}/{denominator}" for numerator, denominator in sorted(meters))
                raise InputError(Reason.UNSUPPORTED, uri, f"its meter is {names}, and only 4/4 is wanted")
        try:
            found = self._tokenizer.encode(score)
        except Exception as error:  # MidiTok has no errors of its own
            name = type(error).__name__
            raise InputError(Reason.TOKENS, uri, f"MidiTok cannot tokenize it: {name}: {error}") from error
        tracks = found if isinstance(found, list) else [found]
        width = len(self.spec.vocabulary_sizes)
        tokens = np.array([ids for track in tracks for ids in track.ids], np.int64).reshape(-1, width)
        if not len(tokens):
            raise InputError(Reason.NO_NOTES, uri, "has no notes that this tokenizer's vocabulary holds")
        if (tokens >= self.spec.vocabulary_sizes).any():
            # Octuple and MuMIDI make words for more bars as they meet them; a vocabulary must not change under way.
            detail = "has more bars than the vocabulary: --set max_bar_embedding=N makes room for N"
            raise InputError(Reason.TOKENS, uri, detail)
        if not isinstance(found, list):
            return Encoded(tokens)
        return Encoded(tokens, np.array([[len(track.ids)] for track in tracks], np.int32))

    @property
    def one_stream(self) -> bool:
        """Whether all tracks are in one sequence."""
        return bool(self._tokenizer.one_token_stream)


@lru_cache(maxsize=4)  # a worker runs its stage over many parts
def load_tokenizer(name: str, settings: tuple[tuple[str, Any], ...], saved: str) -> EmopiaTokenizer | MidiTokTokenizer:
    """A tokenizer by its name.

    Args:
        name: `emopia-cp` or `miditok`.
        settings: fields of `EmopiaSettings`; of a tokenizer of MidiTok only `meter`.
        saved: for MidiTok: the text of its `tokenizer.json`.

    Raises:
        UsageError: the settings do not go together.
    """
    values = dict(settings)
    if name == EMOPIA:
        return EmopiaTokenizer(EmopiaSettings(**values))
    if values["meter"] == "convert":
        raise UsageError("--meter convert: goes with --tokenizer emopia-cp; MidiTok writes the meters that it knows")
    return MidiTokTokenizer(saved, values["meter"])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
