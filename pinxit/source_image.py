"""The picture that image to image and inpainting start from, at the size of the pictures to draw.

Image to image (SDEdit, Meng et al. 2021, arXiv:2108.01073) starts part-way along the path between
data and noise: `strength` is the fraction of the steps that are left there. Inpainting also has a
mask, and only its white part is repainted.
"""

from __future__ import annotations

import hashlib
import io
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pinxit.config import UsageError
from pinxit.data.images.decode import FAULTS, ORIENTATION, Decoded, decode
from pinxit.data.images.formats import OWN
from pinxit.data.images.image_config import ImageConfig
from pinxit.plain_json import plain_values

STRENGTH, MASKED_STRENGTH = 0.6, 1.0
"""The default strength without and with a mask."""
ImageInput = Any
"""A path, a PIL image, or a uint8 array ``h w``, ``h w 3`` or ``h w 4``."""
KINDS = "the path of an image, a PIL image, or a uint8 array of shape (height, width, 3)"


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image to start from, and perhaps a mask of the part to repaint."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """The image at the size of the pictures to draw."""
    mask: Float[np.ndarray, "h w"] | None
    """0 where the image is kept, 1 where it is repainted; values between them blend both. None
    repaints everything."""
    strength: float
    """Fraction of the steps that are made, above 0 and at most 1. At 1 a picture starts from noise
    alone."""
    name: str
    """The name of the image's file, or "" if it was no file."""
    sha256: str
    """SHA-256 of the shape and the bytes of `pixels`, in hexadecimal."""
    mask_name: str
    """The name of the mask's file, or "" if there is none."""
    mask_sha256: str
    """SHA-256 of the mask's shape and bytes, as uint8; "" if there is no mask."""

    @classmethod
    def open(
        cls,
        image: ImageInput,
        *,
        mask: ImageInput | None = None,
        strength: float | None = None,
        size: tuple[int, int],
    ) -> SourceImage:
        """Reads an image and its mask, each a path, a PIL image, or a uint8 array.

        Both are turned upright, composited on white where they are transparent, cropped around the
        centre to the aspect ratio of `size` (width, height), and scaled to it. White in the mask is
        repainted and black is kept. The default strength is 0.6, and 1 with a mask. Raises
        `UsageError` for anything else than such images, for a mask of another shape than the
        image's, and for a mask that is black or white throughout.
        """
        strength = _strength(strength, masked=mask is not None)
        decoded = _read("image", image, size)
        pixels = decoded.image
        assert pixels is not None
        shades = None
        if mask is not None:
            shades = _mask(mask, size, decoded.original)
        return cls(
            pixels=pixels,
            mask=None if shades is None else shades.astype(np.float32) / np.float32(255),
            strength=strength,
            name=_name(image),
            sha256=_sha256(pixels),
            mask_name=_name(mask),
            mask_sha256="" if shades is None else _sha256(shades),
        )

    def steps_of(self, steps: int) -> int:
        """Returns how many of `steps` are made: `strength` times as many, and at least one."""
        return max(1, round(self.strength * steps))

    def recipe(self) -> dict[str, Any]:
        """Returns the part of a picture's recipe that identifies the image and the mask."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "mask_name": self.mask_name,
            "mask_sha256": self.mask_sha256,
            "strength": self.strength,
        }

    def kept(self, drawn: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a drawn picture with the image's own pixels where the mask is 0."""
        if self.mask is None:
            return drawn
        share = self.mask[..., None]
        return np.round(share * drawn + (1 - share) * self.pixels).astype(np.uint8)


def check_without_image(**fields: Any) -> None:
    """Raises if an argument is given that has an effect only with an image."""
    for field, value in fields.items():
        if value is not None:
            shown = value if isinstance(value, str | float | int) else type(value).__name__
            raise UsageError(field, shown, problem="without effect, since no image is given")


def _strength(value: object, *, masked: bool) -> float:
    """Returns the strength as a float, or the default for None."""
    if value is None:
        return MASKED_STRENGTH if masked else STRENGTH
    value = plain_values(value)
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:  # type: ignore[operator]
        valid = "a number above 0 and at most 1"
        raise UsageError("strength", value, problem="not a strength", valid=valid)
    return float(value)  # type: ignore[arg-type]


def _mask(
    mask: ImageInput, size: tuple[int, int], original: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """Returns the mask in shades of grey."""
    decoded = _read("mask", mask, size)
    if decoded.original != original:
        width, height = decoded.original
        raise UsageError(
            "mask",
            f"{width}x{height}",
            problem="not the size of the image",
            valid=f"{original[0]}x{original[1]}",
        )
    assert decoded.image is not None
    shades = np.asarray(Image.fromarray(decoded.image).convert("L"))
    shade = {0: "black", 255: "white"}.get(int(shades[0, 0]))
    if shade is not None and (shades == shades[0, 0]).all():
        instead = {
            "black": "a mask with a white part, which is repainted",
            "white": "a mask with a black part, which is kept; or no mask, to repaint everything",
        }
        problem = f"{shade} throughout"
        raise UsageError("mask", _name(mask) or "the mask", problem=problem, valid=instead[shade])
    return shades


def _read(field: str, image: ImageInput, size: tuple[int, int]) -> Decoded:
    """Returns a decoded image at its final size, or raises `UsageError`."""
    config = ImageConfig(buckets=(size,), formats=OWN)
    if isinstance(image, str | os.PathLike):
        shown: Any = os.fspath(image)
        path = Path(image)
        if not path.is_file():
            problem = "not a file" if path.exists() else "missing"
            raise UsageError(field, shown, problem=problem, valid="the path of an image")
        try:
            data = path.read_bytes()
        except OSError as error:
            problem = f"not readable ({error.strerror})"
            raise UsageError(field, shown, problem=problem, valid="the path of an image") from error
    else:
        picture = _picture(field, image)
        shown = f"{picture.mode} image of {picture.width}x{picture.height}"
        data = _png(field, picture, shown, config.max_pixels)
    decoded = decode(data, config)
    if decoded.status != "ok":
        reason = f"{decoded.status}: {decoded.detail}" if decoded.detail else decoded.status
        valid = f"an image of at most {config.max_pixels:,} pixels"
        raise UsageError(field, shown, problem=f"not usable ({reason})", valid=valid)
    return decoded


def _picture(field: str, image: ImageInput) -> Image.Image:
    """Returns an array as a PIL image, and a PIL image unchanged."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, Mapping):
        problem = "the description in a recipe, which does not contain the image"
        raise UsageError(field, image.get("name") or dict(image), problem=problem, valid=KINDS)
    if not isinstance(image, np.ndarray):
        raise UsageError(field, type(image).__name__, problem="not an image", valid=KINDS)
    flat = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not flat or not image.size:
        shown = f"{image.dtype} array of shape {image.shape}"
        raise UsageError(field, shown, problem="not an image", valid=KINDS)
    return Image.fromarray(np.ascontiguousarray(image))


def _png(field: str, picture: Image.Image, shown: str, most: int) -> bytes:
    """Returns a PIL image as a PNG, so that it is processed as a file is."""
    if math.prod(picture.size) > most:
        valid = f"an image of at most {most:,} pixels"
        raise UsageError(field, shown, problem="too large", valid=valid)
    if picture.mode in ("I", "F"):
        valid = "an image with 8 bits for each colour"
        raise UsageError(field, shown, problem="of an unknown range of values", valid=valid)
    buffer, exif = io.BytesIO(), Image.Exif()
    try:
        picture.load()
        exif[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
        if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        picture.save(buffer, "PNG", compress_level=1, exif=exif, icc_profile=None)
    except FAULTS as error:
        problem = f"damaged ({type(error).__name__}: {error})"
        raise UsageError(field, shown, problem=problem) from error
    return buffer.getvalue()


def _name(image: ImageInput) -> str:
    return Path(image).name if isinstance(image, str | os.PathLike) else ""


def _sha256(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
