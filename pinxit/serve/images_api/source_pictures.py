"""Reads the pictures of a request: the one to begin with, and the mask of the part to repaint.

They are decoded here, to the size of the pictures to draw, exactly as `SourceImage` decodes files,
so that a picture has the same bytes as on the command line. One is decoded at a time, and its
header says first how large it is: that bounds the memory that uploads can take.

A mask follows OpenAI's rule if a part of it is transparent: that part is repainted. A mask without
transparency is Pinxit's: its white part is repainted.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import threading
from dataclasses import dataclass

from PIL import Image, ImageOps

from pinxit.config import UsageError
from pinxit.data.images.decode import FAULTS, Decoded, decode
from pinxit.data.images.image_config import ImageConfig
from pinxit.text_decoding import valid_unicode

MOST_PIXELS = 2**25
"""The largest number of pixels of an upload."""
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)
"""The beginning of a picture that is written into JSON."""
NAME = 200
"""The largest number of characters of a file's name in a recipe."""
ONE = threading.Lock()
"""Held while a picture is decoded."""


@dataclass(frozen=True)
class Upload:
    """A file that came with a request."""

    name: str
    """The name that the client gave, without folders."""
    data: bytes
    """The content of the file."""


@dataclass(frozen=True)
class SourcePictures:
    """The pictures that drawing begins with, at the size of the pictures to draw."""

    image: Image.Image
    """The picture to begin with."""
    mask: Image.Image | None
    """The mask, whose white part is repainted; None repaints everything."""


def upload(name: str, data: bytes) -> Upload:
    """Returns a file with its name as a recipe stores it: without folders and control characters.

    The name is for the recipe alone; no file is opened by it.
    """
    plain = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", valid_unicode(name))[-1])
    return Upload(plain[:NAME], data)


def from_data_url(field: str, text: str, name: str) -> Upload:
    """Returns the picture in a data URL."""
    match = DATA_URL.match(text[:100])
    valid = "data:image/png;base64, and then the file"
    if match is None:
        raise UsageError(field, text[:40], problem="not the data URL of a picture", valid=valid)
    try:
        data = base64.b64decode(text[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        problem = "not valid base64"
        raise UsageError(field, text[:40], problem=problem, valid=valid) from error
    return upload(name, data)


def read_sources(image: Upload, mask: Upload | None, size: tuple[int, int]) -> SourcePictures:
    """Decodes a picture and its mask to `size`, width and height. Raises `UsageError`."""
    with ONE:
        decoded = _decoded("image", image.data, size)
        shades = None if mask is None else _decoded("mask", mask.data, size)
        if mask is not None and shades is not None:
            if shades.original != decoded.original:
                raise UsageError(
                    "mask",
                    "x".join(map(str, shades.original)),
                    problem="not the size of the image",
                    valid="x".join(map(str, decoded.original)),
                )
            transparent = _transparency(mask.data)
            shades = _decoded("mask", transparent, size) if transparent else shades
    return SourcePictures(_picture(decoded), None if shades is None else _picture(shades))


def _decoded(field: str, data: bytes, size: tuple[int, int]) -> Decoded:
    """Returns a decoded upload at its final size."""
    decoded = decode(data, ImageConfig(buckets=(size,), max_pixels=MOST_PIXELS))
    if decoded.status != "ok":
        reason = f"{decoded.status}: {decoded.detail}" if decoded.detail else decoded.status
        valid = f"a PNG, JPEG or WebP of at most {MOST_PIXELS:,} pixels"
        raise UsageError(field, f"{len(data)} bytes", problem=f"not usable ({reason})", valid=valid)
    return decoded


def _picture(decoded: Decoded) -> Image.Image:
    assert decoded.image is not None
    return Image.fromarray(decoded.image)


def _transparency(data: bytes) -> bytes | None:
    """Returns a mask that is white where this one is transparent; None for an opaque one."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if not picture.has_transparency_data:
                return None
            alpha = ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A")
    except FAULTS as error:
        raise UsageError("mask", f"{len(data)} bytes", problem="damaged") from error
    if alpha.getextrema()[0] == 255:
        return None
    buffer = io.BytesIO()
    ImageOps.invert(alpha).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
