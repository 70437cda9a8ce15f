"""The first stage of preparation: from a unit of a source to a shard of images.

::

    rows -> filter -> fetch -> decode, crop -> images/<unit>.array_record   kept, as JPEG
                                               outcomes/<unit>.parquet      an end for every row
                                               units/images/<unit>.json     the commit

A unit depends on nothing but itself, and its files are in the order of its rows, however the web
answered: the same input gives the same bytes whatever the engine, the number of workers, and how
often it was killed. The record is written last; a unit without one is done again. Images of one
size (there are several with aspect-ratio buckets) follow one another in a shard, each in order.

A retry takes up the rows whose end can heal, and leaves all others as they were. The unit's new
files stand beside the old ones until the record changes from these to those.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pinxit.config import UsageError, plain
from pinxit.data.fetch.fetcher import FetchConfig, fetch_all
from pinxit.data.filters.duplicate_list import filters_identity, open_duplicates
from pinxit.data.filters.row_filter import Duplicates, Filter, FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig, encode_image
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome, can_heal
from pinxit.data.prepared.shards import (
    DamagedShard,
    ShardInfo,
    ShardReader,
    pack,
    quarantine,
    shape_name,
    unpack,
    verify_shard,
    write_shard,
)
from pinxit.data.reachability import Reachability
from pinxit.data.row import Row, Source, Unit, source_identity
from pinxit.data.row_images import DecodeFn, FetchFn, reason_to_drop, row_images
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.outcome_files import read_outcomes, write_outcomes
from pinxit.prepare.rejected_previews import Previews
from pinxit.prepare.spool import Spool

QUALITY = 95
"""The quality of the JPEG images in the shards."""


class Offline(OSError):
    """No host can be reached: nothing is learnt of the rows, so nothing is recorded."""


def prepare_images(
    unit: Unit,
    source: Source,
    out: Path,
    *,
    filters: FilterConfig,
    fetch: FetchFn,
    decode: DecodeFn,
    retry: bool = False,
    previews: int = 2,
    duplicates: Duplicates | None = None,
) -> UnitRecord:
    """Does a unit, unless it is done, and returns its record.

    With `retry`, a unit that is done is taken up again if rows of it failed in a way that can heal:
    all of its rows, if a file of it turns out to be damaged (which is quarantined). `previews`
    rejected images for each reason are kept for the report, of a few units; rows with a status in
    `duplicates` are dropped. Raises `files.DiskFull`, and `Offline`.
    """
    ledger = Ledger(out, "images")
    before = ledger.done(unit.id)
    if before is not None and not (retry and any(can_heal(status) for status in before.counts)):
        return before
    start = time.monotonic()
    if before is not None and not _sound(ledger, before):
        before = None
    with Spool(out / "images") as spool:
        former, sizes = _former(ledger, before, spool) if before is not None else ({}, {})
        row_filter = Filter(filters, duplicates=duplicates)
        work = _Work(unit, spool, row_filter, former, sizes, Previews(out, previews))
        images = row_images(
            ((row.key, row) for row in source.read(unit) if work.wanted(row)),
            bears_images=source.bears_images,
            fetch=fetch,
            decode=decode,
            failed=work.end,
            share_urls=True,
        )
        for key, decoded in images:
            work.decoded(key, decoded)
        work.check()
        counts = work.counts()
        if before is not None and counts == before.counts:
            return before  # nothing has healed
        work.previews.write(unit.id, fetch=fetch, decode=decode)
        generation = before.generation + 1 if before is not None else 0
        record = UnitRecord(
            unit=unit.id,
            files=work.write(ledger, generation),
            counts=counts,
            generation=generation,
            measured={**work.measured(), **(before.measured if before else {}), **work.shapes()},
            seconds=time.monotonic() - start,
        )
        ledger.commit(record)
    return record


@dataclass
class ImageStage:
    """`prepare_images` with all it needs, made in the process that does the work: for engines."""

    source: Source
    out: Path
    filters: FilterConfig = field(default_factory=FilterConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    retry: bool = False
    """Takes up the rows of finished units that failed in a way that can heal."""
    previews: int = 2
    """Rejected images kept for the report, for each reason and unit."""
    _pool: DecodePool | None = field(default=None, init=False, repr=False)
    _dropped: Duplicates | None = field(default=None, init=False, repr=False)

    def __call__(self, unit: Unit) -> UnitRecord:
        if self._pool is None:
            self._pool = DecodePool(self.image).__enter__()
            self._dropped = open_duplicates(self.source, self.filters)
        return prepare_images(
            unit,
            self.source,
            self.out,
            filters=self.filters,
            fetch=partial(fetch_all, config=self.fetch),
            decode=self._pool.map,
            retry=self.retry,
            previews=self.previews,
            duplicates=self._dropped,
        )

    def close(self) -> None:
        """Ends the decoding processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def identity(self) -> dict[str, Any]:
        """Returns the settings that decide the content of the images, as plain JSON: a folder holds
        images of one identity."""
        free = ("timeout", "workers", "memory_mb", "bucket_step")
        image = {name: x for name, x in plain(self.image).items() if name not in free}
        image |= {"buckets": plain(self.image.targets) if self.image.bucketed else []}
        open_duplicates(self.source, self.filters)  # raises for a list of other rows
        return {
            "source": source_identity(self.source),
            "filters": filters_identity(self.filters),
            "image": image,
        }

    def notes(self) -> dict[str, Any]:
        """Returns further settings for the report."""
        return {"fetch": plain(self.fetch)}


class _Work:
    """The rows of one unit on their way."""

    def __init__(
        self,
        unit: Unit,
        spool: Spool,
        row_filter: Filter,
        former: Mapping[str, Outcome],
        sizes: dict[str, str],
        previews: Previews,
    ) -> None:
        self.unit = unit
        self.spool = spool
        """Finished records by key."""
        self.filter = row_filter
        self.former = former
        """Ends that stay as they are."""
        self.previews = previews
        self.rows: dict[str, Row] = {}
        """All rows by key, in their order, without what they bear."""
        self.sizes = sizes
        """Shapes of the finished images by key, as `shape_name` writes them."""
        self.outcomes: dict[str, Outcome] = {}
        self.reachability = Reachability("dns", "connect")

    def end(self, key: str, status: str, detail: str) -> None:
        """Records the outcome of a row whose image was asked for."""
        self._end(key, status, detail)
        self.reachability.note(self.rows[key].url, status)

    def _end(self, key: str, status: str, detail: str = "") -> None:
        """Records the one outcome of a row."""
        if key in self.outcomes:
            raise RuntimeError(f"row {key} ends twice: {self.outcomes[key].status}, {status}")
        self.outcomes[key] = Outcome(key, status, _utf8(detail))

    def wanted(self, row: Row) -> bool:
        """Notes the row, and returns whether its image is wanted."""
        if row.key in self.rows:
            raise UsageError(f"the source has two rows with the key {row.key}")
        self.rows[row.key] = _bare(row)
        if row.key in self.former:
            self.outcomes[row.key] = self.former[row.key]
            return False
        reason = reason_to_drop(row, self.filter)
        if reason is not None:
            self._end(row.key, reason)
            self.previews.reject(reason, row)
        return reason is None

    def decoded(self, key: str, decoded: Decoded) -> None:
        """Records the row's outcome, and puts a finished image into the spool."""
        self.end(key, decoded.status, decoded.detail)
        if decoded.image is not None:
            meta = {
                "key": key,
                "caption": self.rows[key].caption,
                "original": list(decoded.original),
                "crop": list(decoded.crop),
            }
            jpeg = encode_image(decoded.image, quality=QUALITY)
            self.sizes[key] = shape_name(decoded.image.shape)
            self.spool[key] = pack({"jpeg": np.frombuffer(jpeg, np.uint8)}, meta)

    def counts(self) -> dict[str, int]:
        """Returns the number of rows by status."""
        return dict(sorted(Counter(end.status for end in self.outcomes.values()).items()))

    def measured(self) -> dict[str, Any]:
        """Returns the figures that the report draws."""
        return {
            "histograms": self.filter.histograms.to_json(),
            "missing": dict(sorted(self.filter.missing.items())),
        }

    def shapes(self) -> dict[str, Any]:
        """Returns the number of images by shape, in the order of the shard."""
        return {"shapes": dict(sorted(Counter(self.sizes.values()).items()))}

    def write(self, ledger: Ledger, generation: int) -> dict[str, ShardInfo]:
        """Writes the unit's files, and returns what they are; no shard if no image is kept."""
        unit, spool = self.unit.id, self.spool
        path = ledger.path("outcomes", unit, generation=generation)
        files = {"outcomes": write_outcomes(path, self.rows, self.outcomes)}
        if len(spool):
            path = ledger.path("images", unit, generation=generation)
            keys = sorted((key for key in self.rows if key in spool), key=self.sizes.__getitem__)
            files["images"] = write_shard(path, (spool[key] for key in keys))
        return files

    def check(self) -> None:
        """Raises `Offline` if not one host was reached, and RuntimeError if a row is lost."""
        if self.reachability.is_offline() and not (self.reachability.ever or self.former):
            count = len(self.reachability.hosts)
            raise Offline(f"unit {self.unit.id}: not one of {count} hosts could be reached")
        images = {key for key, outcome in self.outcomes.items() if outcome.status == "ok"}
        lost = [key for key in self.rows if key not in self.outcomes]
        lost += [key for key in images if key not in self.spool]
        if lost or len(images) != len(self.spool):
            raise RuntimeError(f"unit {self.unit.id}: {len(lost)} rows are lost: {lost[:3]}")


def _bare(row: Row) -> Row:
    """Returns the row without its image, its words as every file can hold them."""
    url, origin = (None if text is None else _utf8(text) for text in (row.url, row.origin))
    return Row(row.key, url, _utf8(row.caption), row.width, row.height, origin=origin)


def _utf8(text: str) -> str:
    """Returns the text, with "?" for what is no character (JSON can spell halves of one)."""
    return text.encode("utf-8", "replace").decode("utf-8")


# --- a retry ----------------------------------------------------------------------------------


def _sound(ledger: Ledger, record: UnitRecord) -> bool:
    """Returns whether the unit's files are what its record says; damaged ones are quarantined."""
    sound = True
    for folder, info in record.files.items():
        path = ledger.root / folder / info.name
        try:
            verify_shard(path, info)
        except DamagedShard:
            quarantine(path)
            sound = False
    return sound


def _former(
    ledger: Ledger, before: UnitRecord, spool: Spool
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Returns the outcomes that a retry keeps, and the images' shapes, by key; puts the images into
    the spool."""
    sizes: dict[str, str] = {}
    paths = {folder: ledger.root / folder / info.name for folder, info in before.files.items()}
    outcomes = read_outcomes(paths["outcomes"])
    if "images" in paths:
        with ShardReader(paths["images"]) as reader:
            for record in reader:
                arrays, meta = unpack(record)
                spool[meta["key"]] = record
                with Image.open(io.BytesIO(arrays["jpeg"].tobytes()), formats=("JPEG",)) as picture:
                    sizes[meta["key"]] = shape_name((picture.height, picture.width, 3))
    final = {outcome.key: outcome for outcome in outcomes if not can_heal(outcome.status)}
    return final, sizes
