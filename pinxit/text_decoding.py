"""Decodes texts that people bring: captions, tables, file names and lists of prompts.

Editors and shells write UTF-8, UTF-8 with a byte order mark, or UTF-16 (Notepad's "Unicode",
PowerShell's ``>``). `decode_text` recognises these. Any other encoding must be declared, because
guessing wrong would change words silently: without a declaration, such a text is an error.
"""

from __future__ import annotations

import codecs
import re

from pinxit.config import UsageError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the mark of UTF-16, so it is tried first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and the encodings that they announce."""
SAMPLE = 4096
"""Number of bytes that are examined for UTF-16 without a mark."""
LINE_END = re.compile(r"\r\n|\n|\r")


class UnknownEncoding(ValueError):
    """Raised for bytes that are not text in a known encoding. The message is one line."""


def decode_text(data: bytes, *, fallback: str | None = None) -> str:
    """Returns the text in `data`, without its byte order mark and without NUL characters.

    A byte order mark decides. Without one, the text is UTF-16 if every other byte of its beginning
    is NUL, and otherwise UTF-8. A text that is neither is decoded with `fallback`. Raises
    `UnknownEncoding` if there is no fallback, or if it does not fit either.
    """
    encoding, start = announced_encoding(data)
    try:
        text = data[start:].decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None or fallback is None:
            raise _unknown(error, encoding or "utf-8") from error
        try:
            text = data.decode(fallback)
        except UnicodeDecodeError as other:
            raise _unknown(other, fallback) from other
    return text.replace("\0", "")


def announced_encoding(data: bytes) -> tuple[str | None, int]:
    """Returns the encoding that the beginning of a text announces, or None, and the length of its
    byte order mark."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    sample = data[:SAMPLE]
    pairs = len(sample) // 2
    if pairs and not len(data) % 2:
        even, odd = sample[: 2 * pairs : 2], sample[1 : 2 * pairs : 2]
        if odd.count(0) == pairs and not even.count(0):
            return "utf-16-le", 0
        if even.count(0) == pairs and not odd.count(0):
            return "utf-16-be", 0
    return None, 0


def valid_unicode(text: str) -> str:
    """Returns a text with "?" in place of lone surrogates, which JSON and file names may have."""
    return text.encode("utf-8", "replace").decode()


def split_lines(text: str) -> list[str]:
    """Returns the lines of a text, which end at a line feed, a carriage return, or both.

    `str.splitlines` also splits at characters that may stand inside a line, such as U+2028.
    """
    lines = LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def known_encoding(field: str, name: str | None) -> str | None:
    """Returns Python's name of an encoding. Raises `UsageError` if there is no such encoding."""
    if name is None or name == "":
        return None
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError) as error:
        valid = "an encoding that Python knows, such as cp1252, latin-1, shift_jis, gb18030"
        raise UsageError(field, name, problem="unknown", valid=valid) from error
    if not getattr(info, "_is_text_encoding", True):
        raise UsageError(field, name, problem="not an encoding of text", valid="such as cp1252")
    return info.name


def _unknown(error: UnicodeDecodeError, encoding: str) -> UnknownEncoding:
    byte = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
    return UnknownEncoding(f"not {encoding.upper()} text ({byte})")
