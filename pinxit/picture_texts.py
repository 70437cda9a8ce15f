"""Reads the texts inside picture files, of Pinxit and of other programs, and writes EXIF.

PNG has text chunks with names. WebP and JPEG have EXIF, in which programs of the field use the user
comment for the text that they call ``parameters``, and the description, make and model of the
camera for texts of the form ``name:text``.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Mapping

from PIL import ExifTags, Image

from pinxit.config import UsageError, few

PARAMETERS = "parameters"
"""The name of the text that image viewers and web interfaces read."""
SHEET = "pinxit_grid"
"""The name of the text in a sheet of `pinxit grid`."""
FORMATS = ("PNG", "WEBP", "JPEG")
"""Pillow's names of the formats that are read."""
COMMENT_PREFIX = b"UNICODE\0"
"""The beginning of an EXIF user comment in UTF-16."""
ASCII, LONG, UNDEFINED = 2, 4, 7
"""The numbers of EXIF's types."""
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
DAMAGE += (KeyError, IndexError, TypeError, AttributeError, OverflowError, UserWarning)
"""Exceptions of Pillow for files that are damaged, and its warnings where they are errors."""


def exif_block(description: str, text: str) -> bytes:
    """Returns an EXIF block with a description in ASCII and a user comment.

    It is written here because Pillow gives a user comment the type BYTE, and other programs expect
    UNDEFINED, as the standard says. They read it as UTF-16, big endian.
    """
    about = f"{description}\0".encode("ascii")
    comment = COMMENT_PREFIX + text.encode("utf-16-be")
    first = 8 + 2 + 2 * 12 + 4  # the first byte after the header and the outer directory
    inner = first + len(about) + len(about) % 2
    entries = (
        struct.pack(">HHII", ExifTags.Base.ImageDescription, ASCII, len(about), first),
        struct.pack(">HHII", ExifTags.IFD.Exif, LONG, 1, inner),
    )
    after = inner + 2 + 12 + 4
    entry = struct.pack(">HHII", ExifTags.Base.UserComment, UNDEFINED, len(comment), after)
    return b"".join(
        (
            b"Exif\0\0",
            struct.pack(">2sHI", b"MM", 42, 8),
            struct.pack(">H", len(entries)),
            *entries,
            bytes(4),
            about.ljust(inner - first, b"\0"),
            struct.pack(">H", 1),
            entry,
            bytes(4),
            comment,
        )
    )


def picture_texts(data: bytes, *, where: str) -> tuple[dict[str, str], str]:
    """Returns the texts in a picture, by the names that a PNG gives them, and Pillow's name of its
    format: PNG, WEBP or JPEG.

    All pixels are decoded as a check. Raises `UsageError`, which begins with `where`, for a file
    that is no such picture or is damaged.
    """
    valid = "a PNG, WebP or JPEG picture"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            texts = {**_exif_texts(image.getexif()), **getattr(image, "text", {})}
            # several pictures in one JPEG make Pillow call its format MPO
            format = "JPEG" if image.format == "MPO" else str(image.format)
            return {str(name): str(text) for name, text in texts.items()}, format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"{where} is too large to be read; valid: {valid}") from error
    except Image.UnidentifiedImageError as error:
        empty = "is empty" if not data else "is no picture, or damaged"
        raise UsageError(f"{where} {empty}; valid: {valid}") from error
    except DAMAGE as error:
        raise UsageError(f"{where} is damaged ({beginning(str(error))}); valid: {valid}") from error


def stored_texts(image: Image.Image) -> dict[str, str]:
    """Returns the texts of an opened picture, without decoding its pixels.

    A PNG's texts behind its pixels and those in its EXIF are left out. Pinxit writes neither.
    """
    if image.format == "PNG":
        return {str(name): text for name, text in image.info.items() if isinstance(text, str)}
    return _exif_texts(image.getexif())


def _exif_texts(exif: Image.Exif) -> dict[str, str]:
    """Returns the texts in EXIF: those of the form ``name:text``, as Pinxit and ComfyUI write
    them, and the user comment as ``parameters``."""
    tags = (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model)
    values = [exif.get(tag) for tag in tags]
    pairs = [value.partition(":") for value in values if isinstance(value, str)]
    texts = {name: text for name, colon, text in pairs if colon and re.fullmatch(r"\w+", name)}
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(COMMENT_PREFIX):
        texts[PARAMETERS] = comment[len(COMMENT_PREFIX) :].decode("utf-16-be", "replace")
    elif isinstance(comment, bytes) and comment:
        texts[PARAMETERS] = comment[len(COMMENT_PREFIX) :].decode("utf-8", "replace")
    return texts


def foreign_texts(texts: Mapping[str, str]) -> str:
    """Says what a picture without a recipe contains: texts of other programs, or a sheet's."""
    if SHEET in texts:
        command = beginning(_command_of_sheet(texts[SHEET]), length=400)
        return f": it is a sheet of several pictures, which this command draws again: {command}"
    if PARAMETERS in texts:
        last = texts[PARAMETERS].strip().splitlines()[-1:]
        settings = f" ({beginning(last[0])!r})" if last and "Steps:" in last[0] else ""
        return (
            f": it has the text {PARAMETERS!r} of A1111, Forge or a similar program{settings}, "
            "but not the settings and the model in Pinxit's form"
        )
    if "workflow" in texts or "prompt" in texts:
        names = " and ".join(repr(name) for name in ("prompt", "workflow") if name in texts)
        return f": it has the graph of ComfyUI ({names}), which only ComfyUI can run"
    return f": it has the texts {few([repr(beginning(name)) for name in texts])}" if texts else ""


def _command_of_sheet(text: str) -> str:
    """Returns the command in the JSON of a sheet, or that of sheets if the JSON is damaged."""
    try:
        sheet = json.loads(text)
    except (ValueError, RecursionError):
        return "pinxit grid"
    return str(sheet.get("command", "pinxit grid")) if isinstance(sheet, dict) else "pinxit grid"


def beginning(text: str, *, length: int = 120) -> str:
    """Returns the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]}..."
