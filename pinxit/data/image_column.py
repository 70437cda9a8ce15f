"""Names the column of a batch that holds the images, as latents or as pixels.

Code that makes columns calls `image_column`. Code that reads them calls `images_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

ImageColumn = Literal["latents", "images"]
LATENTS: ImageColumn = "latents"
"""The column of encoded images: floats of shape (h, w, c) per row."""
IMAGES: ImageColumn = "images"
"""The column of pixels: uint8 of shape (h, w, 3) per row."""
IMAGE_COLUMNS = (LATENTS, IMAGES)
"""The possible image columns. A batch has exactly one of them; all others are text."""

A = TypeVar("A")


def image_column(encoded: bool) -> ImageColumn:
    """Returns the name of the image column, for images `encoded` by the autoencoder or not."""
    return LATENTS if encoded else IMAGES


def images_in(columns: Mapping[str, A]) -> tuple[ImageColumn, A]:
    """Returns the name of the image column in `columns`, and the column itself."""
    name = image_column(LATENTS in columns)
    return name, columns[name]


def text_in(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all columns except the image column."""
    return {name: column for name, column in columns.items() if name not in IMAGE_COLUMNS}
