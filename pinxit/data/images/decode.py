"""Decodes an image from untrusted bytes into the RGB pixels of one training example.

The first bytes must be those of an accepted format, and the size in the header is checked before
any pixel is decoded. Only the first frame is read. Metadata is left out first, apart from the
orientation, so that its faults do not matter (see `metadata`). Every error of the decoder becomes a
status of `pinxit.data.outcome`, never an exception.

An image of W x H pixels is turned upright according to its EXIF orientation. It is then cropped to
the aspect ratio of its target w x h, losing as little as possible, and scaled by
``max(w / W, h / H)`` with a bicubic filter that widens with the scale (antialiasing). The crop box
is in whole pixels of the original, so that a model can be conditioned on it. A JPEG that will
shrink a lot is decoded directly at 1/2, 1/4 or 1/8 of its size, from a part of its cosine
coefficients. This is two to three times faster, and its pixels differ from those of a full decode
by less than one grey level (of 255) on average.

Colours become RGB as the decoder returns them: transparent pixels are composited on white,
palettes are resolved, CMYK is converted by the plain formula, and 16-bit values keep their upper 8
bits. Colour profiles are not applied. All sizes in this file are (width, height), and all boxes are
(left, upper, right, lower) with right and lower exclusive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, JpegImagePlugin

from pinxit.config import UsageError
from pinxit.data.images.aspect_ratios import Size, nearest_bucket
from pinxit.data.images.formats import FORMATS, SUFFIXES, missing_reader, reader_of, sniff
from pinxit.data.images.image_config import ImageConfig
from pinxit.data.images.likeness import HASHED, one_colour, picture_hash
from pinxit.data.images.metadata import jxl_size, webp_size, without_exif_item, without_metadata
from pinxit.lfs_pointer import BEGINNING

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Decoded",
    "ImageConfig",
    "crop_box",
    "decode",
    "decode_jpeg",
    "encode_image",
    "sniff",
]

Box = tuple[int, int, int, int]
HEADER_SIZES: dict[str, Callable[[bytes], Size]] = {"WEBP": webp_size, "JXL": jxl_size}
"""The formats whose readers allocate or decode the whole image on opening, each with a function
that returns the size in the header."""

OTHER_DATA = {
    "HTML": rb"(?is)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)",
    "SVG or XML": rb"(?is)(\xef\xbb\xbf)?\s*<(\?xml|svg)",
    "JSON": rb"\s*[{\[]",
    "video": rb"(?s)....ftyp|\x1a\x45\xdf\xa3",
    "icon": rb"\x00\x00[\x01\x02]\x00",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51",
    "PDF": rb"%PDF",
    "a Git LFS pointer (run git lfs pull)": re.escape(BEGINNING),
    "gzip": rb"\x1f\x8b",
}
"""Name to pattern of other data that servers send instead of an image, for `Decoded.detail`."""

FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError),
    *(MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)
"""Exceptions that Pillow was seen to raise for broken bytes: most of the built-in ones."""

ORIENTATION = 0x0112
TURNS: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transposition that makes the image upright."""

SCALED_DECODE_GAP = 1.5
"""Factor by which a JPEG decoded at a fraction of its size must still exceed its target. At 1 the
loss of detail is measurable (2.5 grey levels), at 1.5 it is not (0.7), and 2 is no better."""
REDUCING_GAP = 3.0
"""The same factor for averaging blocks of pixels before the filter, which applies to any format."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Holds the result of decoding one image."""

    status: str
    """One of ok, not_image, unsupported, too_many_pixels, too_small, too_narrow, blank,
    decode_error or decode_timeout."""
    image: UInt8[np.ndarray, "h w 3"] | None = None
    """The image at its target size; None unless the status is ok."""
    detail: str = ""
    """The reason for a failure in one line; the same bytes give the same text."""
    original: Size = (0, 0)
    """Size of the upright image before cropping; (0, 0) if it was not read."""
    crop: Box = (0, 0, 0, 0)
    """The part of the original that `image` shows, in pixels of the original."""
    body: str = ""
    """A hash of the encoded image; empty unless the status is ok."""
    look: str = ""
    """A perceptual hash of the image (see `picture_hash`); empty unless the status is ok."""


def decode(data: bytes, config: ImageConfig, *, key: str = "") -> Decoded:
    """Decodes `data` to its target size, or returns the reason for a failure.

    Never raises for invalid `data`. The function is pure: a random crop depends on `key` alone. It
    limits neither its time nor, apart from the number of pixels, its memory, so bytes from the web
    belong in a `DecodePool`.
    """
    announced = sniff(data)
    if announced not in config.accepted:
        return Decoded("not_image", detail=f"{announced or _name(data)} is not accepted")
    if reader_of(announced) is None:
        return Decoded("unsupported", detail=missing_reader(announced))
    try:
        with _without_warnings():
            decoded = _decode(data, announced, config, key)
    except Image.DecompressionBombError as error:
        return Decoded("too_many_pixels", detail=_one_line(error))
    except FAULTS as error:
        return Decoded("decode_error", detail=_one_line(error))
    if decoded.image is None:
        return decoded
    return dataclasses.replace(decoded, body=hashlib.blake2b(data, digest_size=8).hexdigest())


def _name(data: bytes) -> str:
    """Returns a name for data that is not an image of a known format."""
    if not data:
        return "an empty body"
    for name, pattern in OTHER_DATA.items():
        if re.match(pattern, data[:256]):
            return name
    return f"something that begins with {data[:8].hex(' ')}"


def _decode(data: bytes, image_format: str, config: ImageConfig, key: str) -> Decoded:
    """Does the work of `decode`, but lets Pillow's exceptions through."""
    canvas = HEADER_SIZES[image_format](data) if image_format in HEADER_SIZES else (0, 0)
    if math.prod(canvas) > config.max_pixels:
        return _too_many(canvas)
    with _opened(without_metadata(data, image_format), image_format) as picture:
        if math.prod(picture.size) > config.max_pixels:
            return _too_many(picture.size)
        if image_format == "PNG":
            # EXIF may follow the pixels: load them here, where their faults are not ignored
            picture.load()
        turn = 1 if _turns_itself(picture, image_format) else _orientation(picture)
        stored = picture.size
        original = _swapped(stored, turn)
        if (refused := _refused(original, config)) is not None:
            return refused
        target = nearest_bucket(original, config.targets)
        crop = crop_box(original, target, place=config.crop, key=key)
        scale = _shrink(picture, _swapped(target, turn), _stored_box(crop, turn, stored))
        picture.load()
        box = tuple(side / scale for side in _stored_box(crop, turn, stored))
        flat = _plain(picture)
        upright = np.array(_turned(_resized(flat, _swapped(target, turn), box), turn))
        if config.blank == "drop" and (colour := one_colour(upright)) is not None:
            return Decoded("blank", detail=f"all of it is {colour}", original=original)
        look = picture_hash(_resized(flat, HASHED, (0, 0, *flat.size)), original)
        return Decoded("ok", upright, original=original, crop=crop, look=look)


def _opened(data: bytes, image_format: str) -> ImageFile.ImageFile:
    """Opens an image with the reader of its format."""
    reader = reader_of(image_format)
    assert reader is not None
    try:
        return reader(io.BytesIO(data))
    except FAULTS:
        if image_format != "AVIF" or (other := without_exif_item(data)) == data:
            raise
        return reader(io.BytesIO(other))


def _turns_itself(picture: ImageFile.ImageFile, image_format: str) -> bool:
    """Returns whether the reader has turned the image upright itself."""
    if image_format == "JXL":
        return not getattr(picture, "jpeg", False)  # the pixels of a JPEG inside are as stored
    return image_format == "TIFF"


def _refused(size: Size, config: ImageConfig) -> Decoded | None:
    """Returns the result for an image that is too small or too narrow, otherwise None."""
    words = f"{size[0]} x {size[1]}"
    if min(size) < config.min_side:
        return Decoded("too_small", detail=f"{words}, below {config.min_side}", original=size)
    if config.max_aspect is not None and max(size) > config.max_aspect * min(size):
        detail = f"{words}, an aspect ratio above {config.max_aspect:g}"
        return Decoded("too_narrow", detail=detail, original=size)
    return None


def _too_many(size: Size) -> Decoded:
    return Decoded("too_many_pixels", detail=f"{size[0]} x {size[1]}", original=size)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppresses Pillow's warnings about broken metadata, which no caller can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _one_line(error: BaseException) -> str:
    """Returns an exception's text as one line, without memory addresses."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


# --- turning and cropping ---------------------------------------------------------------------


def _orientation(picture: Image.Image) -> int:
    """Returns the EXIF orientation, or 1 (upright) if it is absent or invalid."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except FAULTS:
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _swapped(size: Size, turn: int) -> Size:
    """Returns the size with its sides swapped if the turn swaps width and height."""
    return (size[1], size[0]) if turn >= 5 else size


def crop_box(original: Size, target: Size, *, place: str, key: str = "") -> Box:
    """Returns the largest box with the target's aspect ratio, to the nearest pixel.

    `place` is "center" or "random"; the position of a random box depends on `key` alone.
    """
    (width, height), (wide, high) = original, target
    if width * high > height * wide:
        across, down = max(1, round(height * wide / high)), height
    else:
        across, down = width, max(1, round(width * high / wide))
    if place == "center":
        left, upper = (width - across) // 2, (height - down) // 2
    else:
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        left, upper = number % (width - across + 1), number % (height - down + 1)
    return left, upper, left + across, upper + down


def _stored_box(box: Box, turn: int, stored: Size) -> Box:
    """Converts a box of the upright image to coordinates of the image as stored."""
    left, upper, right, lower = box
    if turn >= 5:
        left, upper, right, lower = upper, left, lower, right
    if turn in (2, 3, 7, 8):
        left, right = stored[0] - right, stored[0] - left
    if turn in (3, 4, 6, 7):
        upper, lower = stored[1] - lower, stored[1] - upper
    return left, upper, right, lower


def _turned(picture: Image.Image, turn: int) -> Image.Image:
    """Returns the image turned upright."""
    method = TURNS[turn]
    return picture if method is None else picture.transpose(method)


# --- scaling and colour -----------------------------------------------------------------------


def _shrink(picture: ImageFile.ImageFile, target: Size, box: Box) -> float:
    """Tells the JPEG reader to decode at a fraction of the size; returns the factor it shrinks by.

    Returns 1 for other formats.
    """
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return 1.0
    width = picture.size[0]
    ratio = min((box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1])
    needed = [math.ceil(side * SCALED_DECODE_GAP / ratio) for side in picture.size]
    answer = picture.draft(None, (needed[0], needed[1]))
    return width / answer[1][2] if answer else 1.0


def _resized(picture: Image.Image, target: Size, box: tuple[float, ...]) -> Image.Image:
    """Scales a box of the image to the target size and composites it on white, as RGB."""
    left, upper, right, lower = box
    small = picture.resize(
        target, Image.Resampling.BICUBIC, (left, upper, right, lower), REDUCING_GAP
    )
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    return small.convert("RGB")


def _plain(picture: Image.Image) -> Image.Image:
    """Converts the image to RGBA if it has transparency, otherwise to L or RGB."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode}: the range of their values is unknown")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


# --- JPEGs of prepared datasets ---------------------------------------------------------------


def encode_image(image: UInt8[np.ndarray, "h w 3"], *, quality: int = 95) -> bytes:
    """Encodes an image as a JPEG with full colour resolution (4:4:4) and no metadata.

    `quality` ranges from 1 to 100. One version of the JPEG library gives the same bytes for the
    same pixels.
    """
    if not 1 <= quality <= 100:
        raise UsageError("quality", quality, problem="out of range", valid="1 to 100")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a JPEG that `encode_image` wrote."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))
