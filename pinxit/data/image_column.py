"""The column of a dataset that holds the images: as latents, or as pixels.

Code that makes columns asks `image_column` which to make; code that reads them asks `images_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

ImageColumn = Literal["latents", "images"]
LATENTS: ImageColumn = "latents"
"""The column of encoded images: float, (h, w, c)."""
IMAGES: ImageColumn = "images"
"""The column of pixels: uint8, (h, w, 3)."""
IMAGE_COLUMNS = (LATENTS, IMAGES)
"""The columns that are not text; a batch has one of them."""

A = TypeVar("A")


def image_column(encoded: bool) -> ImageColumn:
    """Returns the name of the column of images, `encoded` by the autoencoder or not."""
    return LATENTS if encoded else IMAGES


def images_in(columns: Mapping[str, A]) -> tuple[ImageColumn, A]:
    """Returns the name of the column of images that there is, and the column."""
    name = image_column(LATENTS in columns)
    return name, columns[name]


def text_in(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all columns but that of images."""
    return {name: column for name, column in columns.items() if name not in IMAGE_COLUMNS}
