"""The image formats: their first bytes, their file suffixes and their readers.

The readers of some formats come with an optional extra of Pinxit. Images in these formats have the
status "unsupported" where the extra is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from dataclasses import dataclass

from PIL import ImageFile, features

EXTRA = "formats"
"""The optional extra of Pinxit with the readers of HEIC and JPEG XL."""


@dataclass(frozen=True)
class Format:
    """An image format and its reader, which is imported when it is first needed."""

    pattern: bytes
    """The pattern of the first bytes."""
    suffixes: tuple[str, ...]
    """The suffixes of its files, in lower case and without the dot."""
    module: str
    """The module of the reader."""
    reader: str
    """The reader's class. It is called directly, so that neither Pillow's choice of a reader nor
    its process-wide pixel limit applies."""
    needs: str
    """The thing to install where the reader is missing."""


PILLOW = "a Pillow with support for {}"
FORMATS: dict[str, Format] = {
    "JPEG": Format(
        rb"\xff\xd8\xff",
        ("jpg", "jpeg", "jpe", "jfif", "jif"),
        *("PIL.JpegImagePlugin", "JpegImageFile", PILLOW),
    ),
    "PNG": Format(
        rb"\x89PNG\r\n\x1a\n",
        ("png", "apng"),
        *("PIL.PngImagePlugin", "PngImageFile", PILLOW),
    ),
    "WEBP": Format(rb"RIFF....WEBP", ("webp",), *("PIL.WebPImagePlugin", "WebPImageFile", PILLOW)),
    "GIF": Format(rb"GIF8[79]a", ("gif",), *("PIL.GifImagePlugin", "GifImageFile", PILLOW)),
    "BMP": Format(rb"BM", ("bmp", "dib"), *("PIL.BmpImagePlugin", "BmpImageFile", PILLOW)),
    "TIFF": Format(
        rb"II\*\x00|MM\x00\*",
        ("tif", "tiff"),
        *("PIL.TiffImagePlugin", "TiffImageFile", PILLOW),
    ),
    "AVIF": Format(
        rb"....ftyp(avi[fs]|(mif1|msf1)....(....)*?avi[fs])",
        ("avif", "avifs"),
        *("PIL.AvifImagePlugin", "AvifImageFile", PILLOW),
    ),
    "HEIF": Format(
        rb"....ftyp(he[iv][cxms]|mif1|msf1)",
        ("heic", "heif", "hif"),
        *("pillow_heif.as_plugin", "HeifImageFile", f'pip install "pinxit[{EXTRA}]"'),
    ),
    "JXL": Format(
        rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
        ("jxl",),
        *("pillow_jxl.JpegXLImagePlugin", "JXLImageFile", f'pip install "pinxit[{EXTRA}]"'),
    ),
}
"""The formats by name, in the order in which the first bytes are compared with them."""
SUFFIXES: dict[str, tuple[str, ...]] = {name: one.suffixes for name, one in FORMATS.items()}
"""The suffixes of each format's files, in lower case and without the dot."""
WEB = tuple(name for name in FORMATS if name != "TIFF")
"""The formats that are accepted from the web. No browser shows TIFF files, and the reader has more
code than all others."""
OWN = tuple(FORMATS)
"""The formats that are accepted in one's own files."""
SNIFFED = 64
"""Number of first bytes that are compared with the patterns."""


def sniff(data: bytes) -> str:
    """Returns the format of `FORMATS` that the first bytes announce, or "" for any other."""
    for name, one in FORMATS.items():
        if re.match(one.pattern, data[:SNIFFED], re.DOTALL):
            return name
    return ""


@functools.cache
def reader_of(name: str) -> type[ImageFile.ImageFile] | None:
    """Returns the reader of a format, with one thread, or None if it is not installed."""
    if name in ("AVIF", "WEBP") and not features.check(name.lower()):
        return None
    with contextlib.suppress(ImportError):
        reader = getattr(importlib.import_module(FORMATS[name].module), FORMATS[name].reader)
        _use_one_thread(name)
        return reader
    return None


def _use_one_thread(name: str) -> None:
    """Prevents a decoder from starting threads, since there is a process for each core."""
    if name == "AVIF":
        importlib.import_module("PIL.AvifImagePlugin").DEFAULT_MAX_THREADS = 1  # type: ignore[attr-defined]
    elif name == "HEIF":
        importlib.import_module("pillow_heif.options").DECODE_THREADS = 1  # type: ignore[attr-defined]
    elif name == "JXL":
        importlib.import_module(FORMATS[name].module).DECODE_THREADS = 0  # type: ignore[attr-defined]


def missing_reader(name: str) -> str:
    """Returns what to do about a format whose reader is not installed, in one line."""
    return f"{name} needs {FORMATS[name].needs.format(name)}"
