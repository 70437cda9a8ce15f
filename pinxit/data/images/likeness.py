"""Detects images of one colour, and computes hashes by which equal images are recognised."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pinxit.data.images.aspect_ratios import Size

FLAT = 8
"""Largest difference of the values of each channel (of 255) in an image of one colour. A JPEG of
one colour has none and a lossy WebP some 5, while photographs of fog or of the night have dozens.
"""
HASHED = (9, 8)
"""Size (width, height) that an image is reduced to for its hash."""
STEP = 2
"""Difference of brightness (of 255) between neighbours that counts. Smaller ones are noise."""
COLOURS = 8
"""Number of steps that each channel of the average colour is rounded to."""


def one_colour(image: UInt8[np.ndarray, "h w 3"]) -> str | None:
    """Returns the colour of an image that has only one, as "#ffffff", otherwise None."""
    # One axis after the other: NumPy takes a hundred times as long for both at once
    low, high = image.min(axis=0).min(axis=0), image.max(axis=0).max(axis=0)
    if (high - low).max() > FLAT:
        return None
    return "#" + "".join(f"{(int(a) + int(b)) // 2:02x}" for a, b in zip(low, high, strict=True))


def picture_hash(small: Image.Image, original: Size) -> str:
    """Returns a hash that is the same for a picture that was encoded again in the same size.

    It has one bit for each pair of neighbours in a row of the reduced image `small`, the rounded
    average colour and the size of the image. It is computed in integers, so that it is the same on
    every machine.
    """
    brightness = np.asarray(small.convert("L"), np.int16)
    bits = np.packbits(brightness[:, 1:] - brightness[:, :-1] > STEP).tobytes()
    total = np.asarray(small, np.int64).sum(axis=(0, 1))
    average = total * COLOURS // (256 * HASHED[0] * HASHED[1])
    return f"{bits.hex()}-{''.join(map(str, average))}-{original[0]}x{original[1]}"
