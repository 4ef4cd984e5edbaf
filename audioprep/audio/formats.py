"""What a file holds, told from its first bytes; which names a scan takes for audio. Imports nothing."""

from __future__ import annotations

# fmt: off
AUDIO_SUFFIXES = frozenset(
    {
        ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".asf", ".au",
        ".avi", ".caf", ".eac3", ".flac", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov",
        ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".rf64",
        ".snd", ".spx", ".tta", ".ts", ".w64", ".wav", ".wave", ".webm", ".wma", ".wmv", ".wv",
    }
)
# fmt: on
"""Lower-case suffixes, with their dot, of files that a folder scan takes for audio or video inputs."""

HEAD_BYTES = 4096

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "flac"),
    (0, b"RF64", "rf64"),
    (0, b"BW64", "rf64"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"#!AMR", "amr"),
    (0, b"\x0b\x77", "ac3"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"wvpk", "wavpack"),
    (0, b"TTA1", "tta"),
    (0, b"MAC ", "ape"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
)
_OGG_CODECS = ((b"\x01vorbis", "vorbis"), (b"OpusHead", "opus"), (b"\x7fFLAC", "oggflac"))


def id3_size(head: bytes) -> int:
    """Bytes that the ID3v2 tag at the start of `head` takes up; 0 where there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def sniff(head: bytes) -> str | None:
    """The format that the first bytes (any ID3v2 tag skipped) tell, or None where they tell nothing."""
    if head[:4] == b"RIFF":
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    if head[:4] == b"FORM":
        return "aiff" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head[:4] == b"OggS":
        return next((name for magic, name in _OGG_CODECS if magic in head[:256]), "ogg")
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    return _mpeg_audio(head)


def _mpeg_audio(head: bytes) -> str | None:
    """`mp3` or `aac` (ADTS) where a frame header starts the file: eleven or twelve set bits."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:  # ADTS: twelve bits of sync, then layer 0, which MPEG audio never uses
        return "aac"
    version, layer, bit_rate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return None if version == 1 or layer == 0 or bit_rate == 15 or rate == 3 else "mp3"


def mp3_declares_frames(head: bytes) -> bool:
    """Whether the first MPEG frame carries a Xing, Info or VBRI tag with the number of frames."""
    for tag in (b"Xing", b"Info"):
        at = head.find(tag, 0, 256)
        if at >= 0:
            return len(head) > at + 7 and bool(head[at + 7] & 1)
    return b"VBRI" in head[:256]
