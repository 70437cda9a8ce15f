"""Pictures and image files for the tests of decoding."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def scene(width: int = 48, height: int = 40, seed: int = 0) -> np.ndarray:
    """Something smooth with a different look in every corner."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.array(rough.resize((width, height), Image.Resampling.BICUBIC))


def write_captioned(root: Path, count: int, sizes: Sequence[tuple[int, int]]) -> Path:
    """A folder of PNG files, whose sizes take turns, with captions beside."""
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize(sizes[i % len(sizes)]).save(root / f"{i:03d}.png")
        (root / f"{i:03d}.txt").write_text(f"red light from the left, number {i}")
    return root


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes, more: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def endless_jpeg(side: int = 2048, scans: int = 20_000) -> bytes:
    """A grey progressive JPEG of some 300 kB whose last scan comes again and again.

    Each scan says in a few bytes that nothing changes in any block, and costs the decoder a walk
    through all of them.
    """
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]
