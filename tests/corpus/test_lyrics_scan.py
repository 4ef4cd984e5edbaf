"""Lyrics are found without recordings, and read in the encodings that say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from audioprep.corpus.encodings import decode
from audioprep.corpus.lyrics import scan_lyrics
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, UsageError

TEXT = "さくら咲く\nlove ♪"


def test_in_a_folder_of_songs_the_tags_are_no_lyrics(tmp_path: Path):
    for name in (
        "song.wav",
        "song.txt",
        "song.lyrics",
        "poem.txt",
        "timed.lrc",
        "timed.txt",
        ".hidden/x.txt",
        "sub/y.TXT",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [str(Path(entry.uri).relative_to(tmp_path)) for entry in scan_lyrics([str(tmp_path)])]
    assert found == ["poem.txt", "song.lyrics", "sub/y.TXT", "timed.lrc"]


def test_what_is_no_source_is_refused(tmp_path: Path):
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(UsageError, match="is no file of lyrics"):
        list(scan_lyrics([str(tmp_path / "x.wav")]))
    with pytest.raises(UsageError, match="no such file"):
        list(scan_lyrics([str(tmp_path / "none")]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_what_they_are(encoding: str):
    assert decode(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("cp932", "ignore"), "may be Shift-JIS: `iconv -f CP932 -t UTF-8`"),
        (TEXT.encode("euc_jp", "ignore"), "may be EUC-JP"),
        ("风轻轻吹过古道".encode("gb18030"), "may be GB 18030"),
        ("não é você, coração".encode("cp1252"), "may be Windows Latin"),
        (TEXT.encode("utf-16-le"), "zero bytes"),
        (b"\xef\xbb\xbf\xff", "is damaged UTF-8"),
        (b"\xff\xfe\x00", "is damaged UTF-16"),
        (b"\x81\xff\x8d", "is not UTF-8: save it as UTF-8$"),
    ],
)
def test_others_are_named_and_not_guessed(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_a_file_of_lyrics_is_its_own_text(tmp_path: Path):
    path = tmp_path / "song.txt"
    path.write_bytes(TEXT.encode("utf-16"))
    (entry,) = scan_lyrics([str(path)])
    assert read_text(entry) == {"lyrics": TEXT}
    path.unlink()
    with pytest.raises(InputError, match="not there any more"):
        read_text(entry)
