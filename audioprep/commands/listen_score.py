"""What `audioprep listen` does with scores: a MIDI file of an item's tokens, beside one of its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from audioprep.commands.base import Summary
from audioprep.commands.midi import tokenizer_text
from audioprep.commands.piano_roll import draw_piano_roll
from audioprep.corpus.content import local_file
from audioprep.corpus.entry import uri_to_path
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset
from audioprep.symbolic.decode import decode_words
from audioprep.symbolic.read import read_score
from audioprep.symbolic.tokenizers import EMOPIA
from audioprep.symbolic.vocabulary import full_vocabulary

RATE = 44_100


def write_scores(
    dataset: Dataset, column: str, item: dict[str, Any], dest: Path, soundfont: Path | None = None
) -> Summary:
    """Writes `NAME.original.mid`, `NAME.COLUMN.mid` and a picture, with a soundfont also `.wav`; gives their paths.

    Raises:
        UsageError: MidiTok's file of the tokenizer has gone, or the soundfont cannot be played.
        InputError: the score cannot be read any more.
    """
    with local_file(item["uri"]) as path:
        original = read_score(Path(path).read_bytes(), item["uri"])
    scores = {"original": original, column: _decoded(dataset, column, item)}
    stem = Path(uri_to_path(item["uri"])).stem
    dest.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, score in scores.items():
        files[name] = dest / f"{stem}.{name}.mid"
        files[name].write_bytes(score.dumps_midi())
        if soundfont:
            files[f"{name} played"] = files[name].with_suffix(".wav")
            _play(score, soundfont, files[f"{name} played"])
    files["picture"] = dest / f"{stem}.{column}.png"
    draw_piano_roll(original, scores[column], files["picture"])
    notes = {name: score.note_num() for name, score in scores.items()}
    return {"id": item["id"], "uri": item["uri"], "notes": notes} | files


def _decoded(dataset: Dataset, column: str, item: dict[str, Any]) -> Any:
    tokens = item[column]
    if dataset.encoders[column]["name"] == EMOPIA:
        return decode_words(tokens, full_vocabulary(tokens.shape[1] == 9))
    from audioprep.symbolic.miditok_files import load

    tokenizer = load(tokenizer_text(dataset, column))
    ids = tokens.tolist() if tokenizer.is_multi_voc else tokens[:, 0].tolist()
    if "track_frames" not in item:
        return tokenizer.decode(ids)
    ends = np.cumsum(item["track_frames"][:, 0]).tolist()
    return tokenizer.decode([ids[start:end] for start, end in zip([0, *ends], ends, strict=False)])


def _play(score: Any, soundfont: Path, target: Path) -> None:
    import soundfile
    from symusic import Synthesizer

    try:
        samples = Synthesizer(str(soundfont), RATE).render(score, stereo=True)
    except Exception as error:  # symusic's own types of errors are not the same in all versions
        raise UsageError(f"{soundfont}: cannot be played with: {error}. Give a .sf2 or .sf3 file.") from error
    soundfile.write(target, np.asarray(samples).T, RATE, subtype="PCM_24")
