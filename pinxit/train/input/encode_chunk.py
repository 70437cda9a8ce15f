"""The number of images that are encoded together, before training or beside it."""

from __future__ import annotations

CHUNK = 64
"""Largest number of images that are encoded together."""
CHUNK_PIXELS = CHUNK * 64 * 64
"""Largest number of pixels that are encoded together, which limits the autoencoder's memory."""


def chunk_size(image_size: int) -> int:
    """Returns how many square images with sides of `image_size` pixels are encoded together."""
    return max(1, min(CHUNK, CHUNK_PIXELS // image_size**2))


def stream_chunk(image_size: int, batch_size: int, *, devices: int, processes: int = 1) -> int:
    """Returns how many images of a stream are encoded together: a multiple of `devices`.

    Each of the `processes` encodes its part of the images on its own devices, whatever the others
    do.
    """
    own = devices // processes
    chunk = min(CHUNK, batch_size // processes, chunk_size(image_size) * own)
    return -(-chunk // own) * devices
