"""From an encoded image to the pixels that are trained on: checked, turned, on white, cropped.

Nothing about the bytes is believed. Their first bytes must be those of an accepted format, the
size in the header is checked before a pixel is decoded, only the first frame is read, and whatever
the decoder says of broken bytes ends in a status of `pinxit.data.row`, never in an exception.

A picture of W x H pixels, turned as its EXIF says, is cropped to the aspect ratio of its target
w x h, losing as little as possible, and scaled by ``max(w / W, h / H)`` with a bicubic filter that
widens with the scale (antialiasing). The crop is given in whole pixels of the original, so that a
model can be told of it. A JPEG that is to shrink much is decoded at 1/2, 1/4 or 1/8 of its size
right away, from a part of its cosine coefficients: two to three times faster, and less than one
grey level (of 255) away from the long way on average.

Colours become RGB as the decoder has them: transparency on white, palettes resolved, CMYK by the
plain formula, of 16 bits the upper 8. Colour profiles are not applied. All pairs of sizes in this
file are (width, height), all boxes (left, upper, right, lower) with the last two exclusive.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pinxit.config import UsageError, choice, positive
from pinxit.data.images.aspect_ratios import Size, make_buckets, nearest_bucket

Box = tuple[int, int, int, int]

FORMATS: dict[str, tuple[bytes, type[ImageFile.ImageFile]]] = {
    "JPEG": (rb"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    "PNG": (rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    "WEBP": (rb"RIFF....WEBP", WebPImagePlugin.WebPImageFile),
    "GIF": (rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    "BMP": (rb"BM", BmpImagePlugin.BmpImageFile),
    "TIFF": (rb"II\*\x00|MM\x00\*", TiffImagePlugin.TiffImageFile),
}
"""Format to the pattern of its first bytes and its reader. The reader is called by itself, so that
no other one, and no limit of the process, has a say."""

STRANGERS = {
    "HTML": rb"(?is)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)",
    "SVG or XML": rb"(?is)(\xef\xbb\xbf)?\s*<(\?xml|svg)",
    "JSON": rb"\s*[{\[]",
    "AVIF or HEIF": rb"(?s)....ftyp(avi|hei|mif|msf)",
    "video": rb"(?s)....ftyp|\x1a\x45\xdf\xa3",
    "icon": rb"\x00\x00[\x01\x02]\x00",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51",
    "PDF": rb"%PDF",
    "gzip": rb"\x1f\x8b",
}
"""What servers send in place of an image, to be named in the reason."""

FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError),
    *(MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)
"""What Pillow raises for broken bytes, by experience: most built-in exceptions."""

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
"""EXIF orientation to the turn that shows the picture upright."""

SCALED_DECODE_GAP = 1.5
"""How much larger than its target a JPEG decoded at a part of its size must remain. At 1 the loss
of detail is visible in the figures (2.5 grey levels), at 1.5 it is not (0.7), at 2 no better."""
REDUCING_GAP = 3.0
"""The same for the averaging of whole pixels before the filter, which any format may get."""


@dataclass(frozen=True)
class ImageConfig:
    """Which images are accepted, and what is made of them."""

    size: int = 256
    """Side of the square that a picture becomes, in pixels, unless there are `buckets`."""
    crop: Literal["center", "random"] = "center"
    """Which part remains where the aspect ratio differs; random depends on the key alone."""
    max_pixels: int = 64 * 2**20
    """A header that announces more is not followed."""
    min_side: int = 0
    """A picture whose shorter side is below this is refused; 0 takes all, enlarging them."""
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
    """Accepted formats; TIFF is the one more that is known."""
    bucket_step: int = 0
    """Above 0, pictures keep about their aspect ratio: sides are multiples of this, areas at most
    size x size (see `make_buckets`); 0: squares."""
    buckets: tuple[tuple[int, int], ...] = ()
    """Target sizes (width, height) to choose from by aspect ratio, in place of `bucket_step`."""
    timeout: float = 20.0
    """Seconds after which a `DecodePool` kills the process that decodes."""
    workers: int | None = None
    """Processes of a `DecodePool`; none means one per available core."""
    memory_mb: int = 1024
    """What one image may take in a `DecodePool`'s process, in MiB (Linux)."""

    def __post_init__(self) -> None:
        for field in ("size", "max_pixels", "workers", "memory_mb"):
            positive(field, getattr(self, field))
        for field in ("min_side", "bucket_step"):
            positive(field, getattr(self, field), minimum=0)
        positive("timeout", self.timeout, minimum=0.001)
        choice("crop", self.crop, ("center", "random"))
        if not self.formats:
            raise UsageError("formats", self.formats, problem="empty", valid=list(FORMATS))
        for name in self.formats:
            choice("formats", name, FORMATS)
        for bucket in self.buckets:
            if len(bucket) != 2 or min(bucket) < 1:
                raise UsageError("buckets", bucket, problem="not a size", valid="(width, height)")

    @property
    def targets(self) -> tuple[Size, ...]:
        """The sizes that a picture may become."""
        if self.bucket_step and not self.buckets:
            return make_buckets(self.size, step=self.bucket_step)
        return self.buckets or ((self.size, self.size),)

    @property
    def bucketed(self) -> bool:
        """Whether pictures become of several sizes."""
        return bool(self.buckets or self.bucket_step)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What became of an encoded image."""

    status: str
    """ok, not_image, too_many_pixels, too_small, decode_error or decode_timeout."""
    image: UInt8[np.ndarray, "h w 3"] | None = None
    """The picture at its target size; None unless ok."""
    detail: str = ""
    """Why not, in one line; the same bytes give the same words."""
    original: Size = (0, 0)
    """Size of the picture, upright; (0, 0) where it was not read."""
    crop: Box = (0, 0, 0, 0)
    """The part of the original that the image shows, in its pixels."""


def decode(data: bytes, config: ImageConfig, *, key: str = "") -> Decoded:
    """The picture in `data`, at its target size, or why there is none. Never raises for `data`.

    A pure function: a random crop depends on `key` alone. It bounds neither its time nor the
    memory below the pixels' limit: bytes from the web go through a `DecodePool`.
    """
    found = sniff(data)
    if found not in config.formats:
        return Decoded("not_image", detail=f"{found or _stranger(data)} is not accepted")
    try:
        with _without_warnings():
            return _decode(data, found, config, key)
    except Image.DecompressionBombError as error:
        return Decoded("too_many_pixels", detail=_said(error))
    except FAULTS as error:
        return Decoded("decode_error", detail=_said(error))


def sniff(data: bytes) -> str:
    """The format of `FORMATS` that the first bytes announce; "" for any other."""
    for name, (pattern, _) in FORMATS.items():
        if re.match(pattern, data[:16], re.DOTALL):
            return name
    return ""


def _stranger(data: bytes) -> str:
    if not data:
        return "an empty body"
    for name, pattern in STRANGERS.items():
        if re.match(pattern, data[:256]):
            return name
    return f"something that begins with {data[:8].hex(' ')}"


def _decode(data: bytes, found: str, config: ImageConfig, key: str) -> Decoded:
    """`decode` without the net."""
    announced = _webp_size(data) if found == "WEBP" else (0, 0)
    if math.prod(announced) > config.max_pixels:
        return _too_many(announced)
    with FORMATS[found][1](io.BytesIO(data)) as picture:
        if math.prod(picture.size) > config.max_pixels:
            return _too_many(picture.size)
        if found == "PNG":
            picture.load()  # its EXIF may follow the pixels, whose faults are not the EXIF's
        # the reader of TIFF turns the picture itself
        turn = 1 if found == "TIFF" else _orientation(picture)
        stored = picture.size
        original = _swapped(stored, turn)
        if min(original) < config.min_side:
            detail = f"{original[0]} x {original[1]}, below {config.min_side}"
            return Decoded("too_small", detail=detail, original=original)
        target = nearest_bucket(original, config.targets)
        crop = crop_box(original, target, place=config.crop, key=key)
        scale = _shrink(picture, _swapped(target, turn), _stored_box(crop, turn, stored))
        picture.load()
        box = tuple(side / scale for side in _stored_box(crop, turn, stored))
        upright = _turned(_resized(_plain(picture), _swapped(target, turn), box), turn)
        return Decoded("ok", np.array(upright), original=original, crop=crop)


def _too_many(size: Size) -> Decoded:
    return Decoded("too_many_pixels", detail=f"{size[0]} x {size[1]}", original=size)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow's remarks about broken metadata are of no use to anyone here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _said(error: BaseException) -> str:
    """One line of what an exception says, without addresses in memory."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


def _webp_size(data: bytes) -> Size:
    """The canvas that a WebP's header announces, which its reader would allocate on opening."""
    kind, head = data[12:16], data[16:30]
    if kind == b"VP8X":
        return int.from_bytes(head[8:11], "little") + 1, int.from_bytes(head[11:14], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[5:9], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = head[10:12], head[12:14]
    return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF


# --- turning and cropping ---------------------------------------------------------------------


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where it is absent or makes no sense."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except FAULTS:
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _swapped(size: Size, turn: int) -> Size:
    """A size on the other side of the turn."""
    return (size[1], size[0]) if turn >= 5 else size


def crop_box(original: Size, target: Size, *, place: str, key: str = "") -> Box:
    """The largest part of a picture with the target's aspect ratio, to the nearest pixel.

    `place` is "center", or "random": a function of `key`.
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
    """Where a box of the upright picture lies in the picture as it is stored."""
    left, upper, right, lower = box
    if turn >= 5:
        left, upper, right, lower = upper, left, lower, right
    if turn in (2, 3, 7, 8):
        left, right = stored[0] - right, stored[0] - left
    if turn in (3, 4, 6, 7):
        upper, lower = stored[1] - lower, stored[1] - upper
    return left, upper, right, lower


def _turned(picture: Image.Image, turn: int) -> Image.Image:
    method = TURNS[turn]
    return picture if method is None else picture.transpose(method)


# --- scaling and colour -----------------------------------------------------------------------


def _shrink(picture: ImageFile.ImageFile, target: Size, box: Box) -> float:
    """Asks for a JPEG decoded at a part of its size; by how much it will be smaller."""
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return 1.0
    width = picture.size[0]
    ratio = min((box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1])
    needed = [math.ceil(side * SCALED_DECODE_GAP / ratio) for side in picture.size]
    answer = picture.draft(None, (needed[0], needed[1]))
    return width / answer[1][2] if answer else 1.0


def _resized(picture: Image.Image, target: Size, box: tuple[float, ...]) -> Image.Image:
    """The box of the picture at the target's size, on white, as RGB."""
    left, upper, right, lower = box
    small = picture.resize(
        target, Image.Resampling.BICUBIC, (left, upper, right, lower), REDUCING_GAP
    )
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    return small.convert("RGB")


def _plain(picture: Image.Image) -> Image.Image:
    """The picture as L, RGB, or RGBA where something is transparent."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode}: the range of their values is unknown")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


# --- what the shards need ---------------------------------------------------------------------


def encode_image(image: UInt8[np.ndarray, "h w 3"], *, quality: int = 95) -> bytes:
    """A JPEG: the same bytes for the same pixels, given one version of the JPEG library.

    Full colour resolution (4:4:4) and no metadata; `quality` runs from 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise UsageError("quality", quality, problem="out of range", valid="1 to 100")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of what `encode_image` made."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))
