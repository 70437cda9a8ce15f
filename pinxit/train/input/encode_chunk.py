"""How many images are encoded together before training, by their size."""

from __future__ import annotations

CHUNK = 64
"""Most images encoded together."""
CHUNK_PIXELS = CHUNK * 64 * 64
"""Most pixels encoded together: an autoencoder's memory grows with them."""


def chunk_size(image_size: int) -> int:
    """Returns how many square images with sides of `image_size` pixels are encoded together."""
    return max(1, min(CHUNK, CHUNK_PIXELS // image_size**2))
