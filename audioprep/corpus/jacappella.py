"""The jaCappella corpus (Nakamura et al. 2023, arXiv 2211.16028): a cappella songs in six voices, with their scores.

`SUBSET/SONG/` holds a recording of each voice, two mixtures, and three scores that differ in their lyrics;
`meta.csv` has a row for each voice of each song. The corpus is gated on the Hub, and must not be passed on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from audioprep.errors import InputError, Reason, UsageError, nearest
from audioprep.scores.musicxml import read_musicxml
from audioprep.scores.scat import is_scat
from audioprep.scores.singing import Line, SungPart, lead_part, sung_parts, timed_lyrics
from audioprep.shards.split import split_of

REPOSITORY = "jaCappella/jaCappella"
PAGE = f"https://huggingface.co/datasets/{REPOSITORY}"
LICENSE = "jaCappella terms of use: gated, no redistribution"

Audio = Literal[
    "lead_vocal", "soprano", "alto", "tenor", "bass", "vocal_percussion", "mixture", "mixture_stereo"
]  # fmt: skip
ScoreKind = Literal["svs", "romaji", "default"]

_SUFFIXES: dict[ScoreKind, str] = {"svs": "_SVS.musicxml", "romaji": "_romaji.musicxml", "default": ".musicxml"}
_LEADS: tuple[Audio, ...] = ("lead_vocal", "mixture", "mixture_stereo")
_WORDLESS: Audio = "vocal_percussion"
_NOT_JAPANESE = re.compile(r"[^\u3041-\u30ff\u3400-\u9fff\uff66-\uff9f々〆。、.,!?！？\s]+")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is taken of the corpus.

    Attributes:
        audio: of each song.
        score: that the lyrics are read from.
        subsets: genres; none for all.
        clean_japanese: take out of the lyrics what is neither Japanese nor punctuation.
        prompt_seconds: how long a prompt an export should cut.
    """

    audio: Audio = "lead_vocal"
    score: ScoreKind = "svs"
    subsets: tuple[str, ...] = ()
    clean_japanese: bool = False
    prompt_seconds: float = 10.0


def download(folder: Path, choice: Choice) -> None:
    """Brings what `choice` needs from the Hub into `folder`; what is there already is not fetched again.

    Raises:
        UsageError: not logged in, the terms are not accepted, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    wanted = [f"{subset}/*/" for subset in choice.subsets] or ["*/*/"]
    patterns = [f"{place}{name}" for place in wanted for name in (f"{choice.audio}.wav", "*.musicxml")]
    try:
        snapshot_download(
            REPOSITORY, repo_type="dataset", local_dir=folder, allow_patterns=["meta.csv", "*.md", "*.txt", *patterns]
        )
    except (RepositoryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        said = str(error).strip() or type(error).__name__
        raise UsageError(
            f"{REPOSITORY}: the Hub does not give it: {said.splitlines()[0]}\n"
            f"jaCappella is gated. Read its terms (research only; no redistribution) and accept them at {PAGE},\n"
            "then log in with `huggingface-cli login` (or set HF_TOKEN) and run this again. With a copy of your own: "
            "--no-download."
        ) from error


def manifest(folder: Path, choice: Choice, splits: Mapping[str, float], seed: int) -> Iterator[dict[str, Any]]:
    """A row for each song: `uri tags lyrics license source split`, and more that becomes `metadata`.

    A song that lacks a recording is a row all the same, and fails as it is read. One whose score is missing or bad has
    a `problem`.

    Args:
        folder: the corpus, or the folder that it was downloaded to.
        choice: what is taken.
        splits: the share of each; all of a song falls into one.
        seed: of the splits.

    Raises:
        UsageError: no corpus, no such subset, or a choice that leaves nothing of the lyrics.
    """
    if choice.clean_japanese and choice.score == "romaji":
        raise UsageError("--clean-japanese: of romaji it leaves nothing; use --musicxml-type svs or default")
    root = _root(folder)
    table = _table(root / "meta.csv")
    names = sorted({(row["subset"], row["title_in_en"]) for row in table} | _songs_on_disk(root))
    known = sorted({subset for subset, _ in names})
    for subset in choice.subsets:
        if subset not in known:
            raise UsageError(f"--subsets {subset}: there are {', '.join(known)}.{nearest(subset, known)}")
    for subset, song in names:
        if choice.subsets and subset not in choice.subsets:
            continue
        facts = [row for row in table if (row["subset"], row["title_in_en"]) == (subset, song)]
        own = next((row for row in facts if row.get("voice_part") == choice.audio), {}) or dict(*facts[:1])
        score = root / subset / song / f"{song}{_SUFFIXES[choice.score]}"
        yield {
            "uri": str(root / subset / song / f"{choice.audio}.wav"),
            "tags": f"a cappella,{subset.replace('_', ' ')}",
            "license": LICENSE,
            "source": f"{PAGE} {subset}/{song}/{choice.audio}.wav {score.name}",
            "split": split_of(song, splits, seed),
            "song": song,
            "genre": subset,
            "part": choice.audio,
            "language": "ja",
            "prompt_seconds": choice.prompt_seconds,
            "meta_csv": own,
        } | _words(score, choice)


def _words(path: Path, choice: Choice) -> dict[str, Any]:
    """What a score says of the part that is heard."""
    if choice.audio == _WORDLESS:
        return {}
    try:
        part = _part(sung_parts(read_musicxml(path), str(path)), choice.audio, path)
    except InputError as error:
        return {"problem": f"its score {path.name} {error.detail}"}
    lead = choice.audio in _LEADS
    scat = [line for line in part.lines if is_scat(line.text, lead)]
    words = [line for line in part.lines if line not in scat]
    if choice.clean_japanese:
        cleaned = (Line(line.start, line.end, _japanese(line.text), line.section) for line in words)
        words = [line for line in cleaned if line.text]
    return {
        "lyrics": timed_lyrics(words, part.seconds) if words else "",
        "scat": "\n".join(line.text for line in scat),
        "score_seconds": round(part.seconds, 3),
        "syllables": part.syllables,
        "syllables_lost": part.lost,
        "notes": [list(asdict(note).values()) for note in part.notes],  # start, seconds, MIDI pitch, syllable
    }


def _part(parts: Sequence[SungPart], audio: Audio, path: Path) -> SungPart:
    found = lead_part(parts) if audio in _LEADS else lead_part(parts, audio)
    if found is None:
        there = ", ".join(part.name for part in parts)
        raise InputError(Reason.SCORE, str(path), f"has no part {audio}; there are {there}")
    return found


def _japanese(text: str) -> str:
    return " ".join(_NOT_JAPANESE.sub(" ", text).split()).strip(" .,、")


def _root(folder: Path) -> Path:
    for root in (folder, folder / "jaCappella"):
        if (root / "meta.csv").is_file():
            return root.absolute()
    raise UsageError(f"{folder}: has no meta.csv, so this is no copy of jaCappella; see {PAGE}")


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="more")
        rows = [{name: value for name, value in row.items() if value} for row in reader]
    missing = {"subset", "title_in_en"} - set(reader.fieldnames or ())
    if missing:
        raise UsageError(f"{path}: has no column {', '.join(sorted(missing))}; download it again from {PAGE}")
    return [row for row in rows if "subset" in row and "title_in_en" in row]


def _songs_on_disk(root: Path) -> set[tuple[str, str]]:
    return {
        (file.parent.parent.name, file.parent.name)
        for kind in ("wav", "musicxml")
        for file in root.glob(f"*/*/*.{kind}")
    }
