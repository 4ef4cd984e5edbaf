"""Makes every file in `audioprep/samples/audio` anew: python audioprep/samples/make_samples.py

A tool for maintainers: it needs the development dependencies and the program espeak-ng. Seeds are fixed and
ffmpeg is told to be bitexact, so on one machine the same versions of the tools give the same bytes.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe

from audioprep.errors import UsageError
from audioprep.samples import sample_folder
from audioprep.samples.scores import PIECES, Piece
from audioprep.samples.synth import Samples, normalize, render


class Format(NamedTuple):
    """How a file is stored: its rate in Hz, its channels, and ffmpeg's options for the codec."""

    rate: int
    channels: int
    codec: str


FORMATS = {
    "music/bach_chorale_bwv269.flac": Format(24000, 2, "flac -sample_fmt s16 -compression_level 12"),
    "music/bach_chorale_bwv66.ogg": Format(24000, 1, "libvorbis -q:a 4"),
    "music/bach_prelude_c.mp3": Format(44100, 2, "libmp3lame -q:a 5"),
    "music/ode_to_joy.wav": Format(22050, 1, "pcm_s16le"),
    "music/pachelbel_canon.m4a": Format(44100, 2, "aac -b:a 64k"),
    "music/traditional/auld_lang_syne.opus": Format(48000, 1, "libopus -b:a 40k"),
    "music/traditional/drunken_sailor.mp3": Format(24000, 1, "libmp3lame -q:a 4"),
    "music/traditional/Frère Jacques.m4a": Format(48000, 2, "aac -b:a 64k"),
    "music/traditional/greensleeves.opus": Format(48000, 2, "libopus -b:a 40k"),
    "music/traditional/さくら.ogg": Format(44100, 2, "libvorbis -q:a 2"),
    "speech/english.flac": Format(16000, 1, "flac -sample_fmt s16 -compression_level 12"),
    "speech/japanese.opus": Format(48000, 1, "libopus -b:a 32k"),
    "speech/portuguese.mp3": Format(22050, 1, "libmp3lame -q:a 4"),
}


class Speech(NamedTuple):
    """A text that espeak-ng reads aloud, with one of its voices."""

    path: str
    voice: str
    language: str
    text: str


SPEECH = [
    Speech(
        "speech/english.flac",
        "en-gb",
        "english",
        "Every folder of sound has a story.\nThis one was spoken by a machine, for a machine.\n",
    ),
    Speech(
        "speech/japanese.opus",
        "ja",
        "japanese",
        "おはよう ございます。\nきかいが よむ こえです。\nとても いい てんきですね。\n",
    ),
    Speech(
        "speech/portuguese.mp3",
        "pt-br",
        "portuguese",
        "Bom dia!\nEsta voz não é de ninguém,\nmas pode ler qualquer texto que você escrever.\n",
    ),
]


def main() -> None:
    """Replaces the whole folder of samples."""
    audio = sample_folder()
    if shutil.which("espeak-ng") is None:
        raise UsageError("espeak-ng: this program is missing; install it with the system's package manager")
    shutil.rmtree(audio, ignore_errors=True)
    for piece in PIECES:
        make_music(audio, piece)
    for speech in SPEECH:
        make_speech(audio, speech)
    make_special_cases(audio)


def make_music(audio: Path, piece: Piece) -> None:
    """Writes a piece and its tags; its lyrics and its source where it has them."""
    path, form = audio / piece.path, FORMATS[piece.path]
    metadata = {"title": piece.title, "artist": "audioprep", "composer": piece.composer}
    encode(path, render(piece, form.rate, form.channels), form.rate, form.codec, metadata)
    path.with_suffix(".txt").write_text(piece.tags + "\n", encoding="utf-8")
    if piece.lyrics:
        path.with_suffix(".lyrics").write_text(piece.lyrics, encoding="utf-8")
    if piece.source:
        facts = {"licence": "CC0-1.0", "composer": piece.composer, "source": piece.source}
        text = json.dumps(facts, ensure_ascii=False, indent=2)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def make_speech(audio: Path, speech: Speech) -> None:
    """Writes what espeak-ng says, its tags, and the text itself as the lyrics."""
    path, form = audio / speech.path, FORMATS[speech.path]
    command = ["espeak-ng", "-v", speech.voice, "-s", "150", "--stdout", speech.text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = read(io.BytesIO(wav))
    encode(path, normalize(samples), rate, f"{form.codec} -ar {form.rate}", {"artist": "espeak-ng"})
    path.with_suffix(".txt").write_text(f"speech,synthetic,{speech.language}\n", encoding="utf-8")
    path.with_suffix(".lyrics").write_text(speech.text, encoding="utf-8")


def make_special_cases(audio: Path) -> None:
    """Writes an exact copy, a copy in another codec, and a file that nothing can decode."""
    music = audio / "music"
    shutil.copyfile(music / "traditional/greensleeves.opus", music / "greensleeves_copy.opus")
    samples, rate = read(music / "bach_chorale_bwv269.flac")
    encode(music / "bach_chorale_bwv269_again.mp3", samples, rate, "libmp3lame -q:a 5", {})
    header = (music / "ode_to_joy.wav").read_bytes()[:12]
    (music / "broken.wav").write_bytes(header + bytes(4096))


def read(source: Path | io.BytesIO) -> tuple[Samples, int]:
    """Samples [T, channels] and their rate."""
    samples, rate = soundfile.read(source, always_2d=True)
    return np.asarray(samples, np.float64), rate


def encode(path: Path, samples: Samples, rate: int, codec: str, metadata: dict[str, str]) -> None:
    """Writes `samples` [T, channels] with ffmpeg, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = ["-f", "f32le", "-ar", str(rate), "-ac", str(samples.shape[1]), "-i", "pipe:0"]
    tags = [option for key, value in metadata.items() for option in ("-metadata", f"{key}={value}")]
    exact = ["-fflags", "+bitexact", "-flags:a", "+bitexact", "-threads", "1", "-c:a", *codec.split()]
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *raw, *tags, *exact, str(path)]
    subprocess.run(command, input=samples.astype("<f4").tobytes(), check=True)


if __name__ == "__main__":
    main()
