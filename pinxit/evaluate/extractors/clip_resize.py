"""Resizes pictures for CLIP's vision tower, as CMMD and as transformers' CLIPProcessor do.

The bundled CLIP has its own way, `lanczos`. Both others use PIL's bicubic filter on bytes and round
the result to bytes. CMMD's authors first cut the centre square out and then resize it
(`_center_crop_and_resize` in google-research/cmmd). The CLIPProcessor (its PIL backend) first
resizes the shortest side and then cuts the centre out. For a square picture both give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pinxit.config import UsageError
from pinxit.encoders.clip import IMAGE_MEAN, IMAGE_STD
from pinxit.encoders.weights import read_config

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""The files that describe a processor, of older and of newer versions of transformers."""


def centre_then_resize(
    picture: UInt8[np.ndarray, "hi wi 3"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns the centre square of a picture, resized: CMMD's order."""
    image = Image.fromarray(picture)
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def resize_then_centre(
    picture: UInt8[np.ndarray, "hi wi 3"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns the centre square of a resized picture: the order of transformers' CLIPProcessor.

    The longer side is rounded down.
    """
    image = Image.fromarray(picture)
    short = min(image.size)
    wide, high = (int(size * length / short) for length in image.size)
    left, top = (wide - size) // 2, (high - size) // 2
    resized = image.resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(resized)[top : top + size, left : left + size]


def lanczos(picture: UInt8[np.ndarray, "hi wi 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Returns a picture resized by PIL's Lanczos filter, which changes the ratio of its sides."""
    image = Image.fromarray(picture)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def check_processor(directory: Path, size: int) -> None:
    """Raises `UsageError` if a directory describes another processor than CLIP's for this size."""
    for file in PROCESSOR_FILES:
        if (directory / file).is_file():
            stored = read_config(directory / file)
            _check(stored.get("image_processor", stored), directory / file, size)


def _check(stored: Any, path: Path, size: int) -> None:
    if not isinstance(stored, Mapping):
        raise UsageError(f"{path}: image_processor is {stored!r}; it must be an object")
    expected: dict[str, Any] = {
        "size": size,
        "crop_size": size,
        "resample": Image.Resampling.BICUBIC.value,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "rescale_factor": 1 / 255,
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
    }
    for name, value in expected.items():
        stated = stored.get(name)
        if isinstance(stated, Mapping):  # {"shortest_edge": 224} or {"height": 224, "width": 224}
            sides = {side for side in stated.values() if side is not None}
            stated = sides.pop() if len(sides) == 1 else stated
        if stated is not None and not _same(stated, value):
            raise UsageError(
                f"{path}: {name} is {stored[name]!r}, but Pinxit's preprocessing for this CLIP "
                f"has {value!r}; a figure of another preprocessing would not be comparable"
            )


def _same(stated: Any, value: Any) -> bool:
    """Returns whether two numbers or lists of numbers are equal up to the digits of a file."""
    try:
        a, b = np.asarray(stated, np.float64), np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=0))
