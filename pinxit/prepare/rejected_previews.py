"""Thumbnails of images that the filters reject, so that thresholds can be judged by eye.

For the first units prepared, a few rejected images for each reason are fetched, or taken from the
source, and stored as thumbnails beside the dataset, of which they are not part. Images that were
rejected as unsafe or because of a block list are never fetched or shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pinxit.data.images.decode import encode_image
from pinxit.data.prepared.shards import SUFFIX, DamagedShard, ShardReader, pack, unpack, write_shard
from pinxit.data.row import Row

FOLDER = "previews"
UNITS = 40
"""The number of units from which thumbnails are made."""
SIDE = 128
"""Longer side of a thumbnail, in pixels."""
HIDDEN = frozenset({"filtered_nsfw", "filtered_domain"})
"""The reasons for which no thumbnails are made."""
Lazy = Callable[[Iterable[tuple[str, Any]]], Iterator[tuple[str, Any]]]


class Previews:
    """Collects rejected rows of one unit, at most `each` for a reason, and stores thumbnails."""

    def __init__(self, root: Path, each: int) -> None:
        folder = root / FOLDER
        enough = folder.is_dir() and sum(1 for _ in folder.iterdir()) >= UNITS
        self.folder = folder
        self.each = 0 if enough else each
        self._rows: dict[str, list[Row]] = {}

    def reject(self, reason: str, row: Row) -> None:
        """Notes a row that a filter rejected, if a thumbnail of it may be stored."""
        if reason.startswith("filtered_") and reason not in HIDDEN:
            rows = self._rows.setdefault(reason, [])
            if len(rows) < self.each:
                rows.append(row)

    def write(self, unit: str, *, fetch: Lazy, decode: Lazy) -> None:
        """Fetches and decodes the noted rows, and writes the thumbnails of the successes."""
        noted = {row.key: (reason, row) for reason, rows in self._rows.items() for row in rows}
        if not noted:
            return
        bodies = [(key, row.image) for key, (_, row) in noted.items() if row.image is not None]
        links = [(key, row.url) for key, (_, row) in noted.items() if row.image is None]
        if links:
            bodies += [(key, fetched.data) for key, fetched in fetch(links) if fetched.data]
        order = {key: number for number, key in enumerate(noted)}
        records = []
        for key, decoded in decode(sorted(bodies, key=lambda item: order[item[0]])):
            if decoded.image is not None:
                reason, row = noted[key]
                meta = {
                    "key": key,
                    "reason": reason,
                    "caption": row.caption.encode("utf-8", "replace").decode(),
                }
                jpeg = np.frombuffer(encode_image(thumbnail(decoded.image), quality=85), np.uint8)
                records.append(pack({"jpeg": jpeg}, meta))
        if records:
            write_shard(self.folder / f"{unit}{SUFFIX}", records)


def thumbnail(image: UInt8[np.ndarray, "h w 3"], *, side: int = SIDE) -> UInt8[np.ndarray, "a b 3"]:
    """Returns the image reduced so that its longer side is at most `side` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def read_previews(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yields (reason, caption, JPEG) of every stored thumbnail."""
    for path in sorted((root / FOLDER).glob(f"*{SUFFIX}")):
        with contextlib.suppress(DamagedShard, OSError), ShardReader(path) as reader:
            for record in reader:
                arrays, meta = unpack(record)
                yield meta["reason"], meta["caption"], arrays["jpeg"].tobytes()
