from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_midi_command import CONSOLE, settings, write_songs

from audioprep.commands import listen, midi
from audioprep.errors import UsageError
from audioprep.symbolic.read import read_score


def hear(out: Path, dest: Path, **others) -> dict[str, Any]:
    wanted = {"out": out, "item": "Q1_00000000000_0.mid", "dest": dest}
    return listen.run(listen.Settings.model_validate(wanted | others), CONSOLE)


def notes(path: Path) -> list[tuple[int, int]]:
    """Onsets in steps of 16 a bar, and pitches."""
    score = read_score(path.read_bytes(), str(path))
    step = score.ticks_per_quarter / 4
    return sorted((round(note.time / step), note.pitch) for track in score.tracks for note in track.notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tokenizer", "fields"), [("emopia-cp", {}), ("remi", {}), ("miditok:TSD", {}), ("cp", {"use_chords": True})]
)
def test_tokens_become_midi_again(tmp_path: Path, tokenizer: str, fields: dict) -> None:
    write_songs(tmp_path / "songs", songs=1, excerpts=1)
    out = tmp_path / "out"
    midi.run(settings(tmp_path / "songs", out, tokenizer=tokenizer, tokenizer_settings=fields), CONSOLE)
    found = hear(out, tmp_path / "dest")
    original, decoded = (tmp_path / "dest" / f"Q1_00000000000_0.{name}.mid" for name in ("original", "midi_tokens"))
    assert notes(original) == notes(decoded)
    assert found["notes"] == {"original": 10, "midi_tokens": 10}
    assert Path(found["picture"]).read_bytes()[:4] == b"\x89PNG"
    if tokenizer == "emopia-cp":
        (tmp_path / "bad.sf2").write_bytes(b"RIFF")
        with pytest.raises(UsageError, match="bad.sf2"):
            hear(out, tmp_path / "dest", soundfont=tmp_path / "bad.sf2")
