"""Bytes of a text file to text, without a guess that could be wrong."""

from __future__ import annotations

import codecs

# A mark at the beginning says which it is; UTF-32's is tried before UTF-16's, which it begins with.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JAPANESE = ("cp932", "euc_jp")
_LIKELY = {"cp932": "Shift-JIS", "euc_jp": "EUC-JP", "gb18030": "GB 18030", "cp1252": "Windows Latin"}


def decode(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 and UTF-32 with their byte order mark.

    Raises:
        ValueError: it is another encoding, or no text; says which it may be, and what to do.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(name)
            except UnicodeDecodeError as error:
                raise ValueError(f"is damaged {name.upper()}: {error.reason} at byte {error.start}") from error
    if b"\0" in data:
        raise ValueError("holds zero bytes: it is no text, or UTF-16 without its mark. Save it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        likely = _likely(data)
        hint = f"; it may be {_LIKELY[likely]}: `iconv -f {likely.upper()} -t UTF-8`" if likely else ""
        raise ValueError(f"is not UTF-8: save it as UTF-8{hint}") from error


def _likely(data: bytes) -> str | None:
    """The encoding in which a text is mostly kana, Chinese characters or Latin letters; None where none fits."""
    best: tuple[float, str | None] = (0.5, None)
    for name in _LIKELY:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        letters = [char for char in text if char > "\x7f"]
        kana = sum("\u3041" <= char <= "\u30ff" for char in letters)
        usual = sum("\u4e00" <= char <= "\u9fff" or "\u00c0" <= char <= "\u00ff" for char in letters)
        if name in _JAPANESE and not kana:
            continue
        # Half of all Japanese is kana; the same bytes in the wrong encoding are rare characters.
        score = (2 * kana + usual) / max(len(letters), 1)
        best = max(best, (score, name), key=lambda pair: pair[0])
    return best[1]
