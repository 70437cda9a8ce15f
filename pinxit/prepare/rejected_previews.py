"""Thumbnails of images that are rejected, so that thresholds can be judged by eye.

For the first units prepared, a few rejected images for each reason are fetched, or taken from the
source, and stored as thumbnails beside the dataset, of which they are not part. Whatever a row was
dropped for, its image is never fetched or shown if it is unsafe, or if its domain is blocked.
Placeholders, which were fetched anyway, are shown too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.html_ampersands import without_entities
from pinxit.data.images.decode import decode_jpeg, encode_image
from pinxit.data.prepared.shards import SUFFIX, DamagedShard, ShardReader, pack, unpack, write_shard
from pinxit.data.row import Row
from pinxit.text_decoding import valid_unicode

FOLDER = "previews"
UNITS = 40
"""The number of units from which thumbnails are made."""
SIDE = 128
"""Longer side of a thumbnail, in pixels."""
Lazy = Callable[[Iterable[tuple[str, Any]]], Iterator[tuple[str, Any]]]


class Previews:
    """Collects rejected rows of one unit, at most `each` for a reason, and stores thumbnails."""

    def __init__(self, root: Path, each: int, *, blocked_domains: Sequence[str] = ()) -> None:
        """Opens the folder. Images of `blocked_domains` are not shown."""
        folder = root / FOLDER
        enough = folder.is_dir() and sum(1 for _ in folder.iterdir()) >= UNITS
        self.folder = folder
        self.each = 0 if enough else each
        self._blocked = Filter(FilterConfig(blocked_domains=tuple(blocked_domains)))
        self._rows: dict[str, list[Row]] = {}
        self._pictures: dict[str, list[bytes]] = {}
        """Finished records by reason."""

    def reject(self, reason: str, row: Row, row_filter: Filter) -> None:
        """Notes a row that a filter rejected, if a thumbnail of it may be stored."""
        rows = self._rows.setdefault(reason, [])
        if not reason.startswith("filtered_") or len(rows) >= self.each:
            return
        if row_filter.may_be_shown(row) and not self._blocked.is_blocked(row):
            rows.append(row)

    def show(self, reason: str, key: str, caption: str, jpeg: bytes) -> None:
        """Adds an image that was fetched and is not part of the dataset."""
        pictures = self._pictures.setdefault(reason, [])
        if len(pictures) < self.each:
            pictures.append(_record(reason, key, caption, decode_jpeg(jpeg)))

    def write(self, unit: str, *, fetch: Lazy, decode: Lazy) -> None:
        """Fetches and decodes the noted rows, and writes the thumbnails of the successes."""
        noted = {row.key: (reason, row) for reason, rows in self._rows.items() for row in rows}
        records = [record for records in self._pictures.values() for record in records]
        if not noted and not records:
            return
        bodies = [(key, row.image) for key, (_, row) in noted.items() if row.image is not None]
        links = [
            (k, without_entities(r.url or "")) for k, (_, r) in noted.items() if r.image is None
        ]
        if links:
            bodies += [(key, fetched.data) for key, fetched in fetch(links) if fetched.data]
        order = {key: number for number, key in enumerate(noted)}
        for key, decoded in decode(sorted(bodies, key=lambda item: order[item[0]])):
            if decoded.image is not None:
                reason, row = noted[key]
                records.append(_record(reason, key, row.caption, decoded.image))
        path = self.folder / f"{unit}{SUFFIX}"
        new = {unpack(record)[1]["reason"] for record in records}
        before = [record for record in _stored(path) if unpack(record)[1]["reason"] not in new]
        if records:
            write_shard(path, [*before, *records])


def _record(reason: str, key: str, caption: str, image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns a thumbnail as it is stored."""
    meta = {"key": key, "reason": reason, "caption": valid_unicode(caption)}
    jpeg = np.frombuffer(encode_image(thumbnail(image), quality=85), np.uint8)
    return pack({"jpeg": jpeg}, meta)


def _stored(path: Path) -> list[bytes]:
    """Returns the thumbnails that an earlier attempt at a unit stored."""
    if path.is_file():
        with contextlib.suppress(DamagedShard), ShardReader(path) as reader:
            return list(reader)
    return []


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
