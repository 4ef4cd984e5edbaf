"""MusicXML files, plain and compressed (.mxl), as music21 scores.

A file is looked through before music21 sees it: one that declares entities of its own (which can name other files, or
grow without end) is refused, and nothing that a file names is ever fetched.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.parsers import expat

from audioprep.corpus.encodings import decode
from audioprep.errors import InputError, Reason, UsageError

if TYPE_CHECKING:
    from music21.stream import Score

MUSICXML_SUFFIXES = (".musicxml", ".xml", ".mxl")
_MAX_BYTES = 64 * 2**20  # unpacked; the scores of whole operas have a third of it
_DECLARED = re.compile(rb"""<\?xml[^>]*encoding=["']([\w.:-]+)["']""")
_UNREADABLE = (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zipfile.zlib.error)  # pyright: ignore[reportAttributeAccessIssue]


def read_musicxml(path: Path) -> Score:
    """Reads a score.

    Raises:
        InputError: it is no MusicXML, damaged, over 64 MiB unpacked, or declares entities.
        UsageError: music21 is not installed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(Reason.NOT_FOUND, str(path), "there is no such score") from error
    except OSError as error:
        raise InputError(Reason.UNREADABLE, str(path), f"cannot be read: {error.strerror}") from error
    return parse_musicxml(data, str(path))


def parse_musicxml(data: bytes, uri: str) -> Score:
    """Reads a score from the bytes of its file, which `uri` names in errors.

    Raises:
        InputError, UsageError: as of `read_musicxml`.
    """
    if not data:
        raise InputError(Reason.EMPTY, uri, "is empty; export the score again")
    if zipfile.is_zipfile(io.BytesIO(data)):
        data = _unpacked(uri, data)
    return _score(uri, _checked(uri, _decoded(uri, data)))


def _score(uri: str, root: ElementTree.Element) -> Score:
    try:
        from music21.musicxml.xmlToM21 import MusicXMLImporter
    except ModuleNotFoundError as error:
        raise UsageError("scores need music21: pip install 'audioprep[symbolic]'") from error
    try:
        importer = MusicXMLImporter()
        importer.xmlRootToScore(root, importer.stream)
        return importer.stream
    except Exception as error:  # music21 has no class of its own for what it stumbles over in a file
        raise InputError(
            Reason.SCORE, uri, f"music21 cannot read it: {error or type(error).__name__}; export the score again"
        ) from error


def _unpacked(uri: str, data: bytes) -> bytes:
    """The score inside a compressed file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = _score_name(uri, archive)
            if archive.getinfo(name).file_size > _MAX_BYTES:
                raise InputError(Reason.UNSUPPORTED, uri, "is over 64 MiB unpacked: is it a score?")
            # Not `read`: a wrong size in the archive's directory must not matter.
            with archive.open(name) as file:
                return file.read(_MAX_BYTES + 1)
    except _UNREADABLE as error:
        raise InputError(Reason.CORRUPT, uri, f"its archive is damaged: {error}; export it again") from error


def _score_name(uri: str, archive: zipfile.ZipFile) -> str:
    container = "META-INF/container.xml"
    if container in archive.namelist():
        with archive.open(container) as file:
            root = _checked(uri, _decoded(uri, file.read(_MAX_BYTES + 1)), any_root=True)
        for element in root.iter():
            if element.tag.rpartition("}")[2] == "rootfile" and (name := element.get("full-path")):
                return name
    for name in archive.namelist():
        if name.lower().endswith((".xml", ".musicxml")) and not name.startswith("META-INF"):
            return name
    raise InputError(Reason.SCORE, uri, "there is no MusicXML in the archive; export it again")


def _decoded(uri: str, data: bytes) -> str:
    if len(data) > _MAX_BYTES:
        raise InputError(Reason.UNSUPPORTED, uri, "is over 64 MiB: is it a score?")
    declared = _DECLARED.match(data)
    try:
        if declared and not declared[1].lower().startswith(b"utf"):
            return data.decode(declared[1].decode())
        return decode(data)
    except (LookupError, ValueError) as error:
        raise InputError(Reason.CORRUPT, uri, f"cannot be decoded: {error}") from error


def _checked(uri: str, text: str, any_root: bool = False) -> ElementTree.Element:
    """The root of an XML document that declares nothing."""

    def refuse(name: str, *_: object) -> None:
        raise InputError(
            Reason.SCORE,
            uri,
            f"declares the XML entity {name}, which no notation program writes: refused, as it could read other files "
            "or never end. Export the score again",
        )

    parser = expat.ParserCreate("utf-8")
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
        root = ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError, ValueError) as error:
        raise InputError(Reason.CORRUPT, uri, f"is no well-formed XML: {error}; export it again") from error
    if any_root or root.tag == "score-partwise":
        return root
    kind = "is MusicXML by time (score-timewise)" if root.tag == "score-timewise" else f"is XML of a <{root.tag}>"
    raise InputError(Reason.SCORE, uri, f"{kind}: export it as MusicXML by parts (score-partwise)")
