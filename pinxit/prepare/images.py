"""The first stage of preparation: converts a unit of a source to a shard of images.

::

    rows -> filter -> fetch -> decode, crop -> images/<unit>.array_record   kept images, as JPEG
                                               outcomes/<unit>.parquet      an outcome for every row
                                               units/images/<unit>.json     the commit record

A unit depends only on itself, and its files are in the order of its rows, not of the web's replies.
So the same input gives the same bytes for every engine and number of workers, and however often the
work was killed. The commit record is written last, and a unit without one is done again. A shard
holds the images of one size together, in order. There are several sizes with aspect-ratio buckets.

A retry tries the rows again whose failure may be temporary, and leaves all others unchanged. The
unit's new files exist beside the old ones until the record switches to them.
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
    """No host can be reached, which says nothing about the rows, so no outcome is recorded."""


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

    With `retry`, a unit that is done is tried again if rows of it failed for a reason that may be
    temporary. If a file of it is damaged, the file is quarantined and all rows are done again. Up
    to `previews` rejected images for each reason are stored for the report, from the first units.
    Rows that are listed in `duplicates` are dropped. Raises `files.DiskFull` and `Offline`.
    """
    ledger = Ledger(out, "images")
    before = ledger.done(unit.id)
    if before is not None and not (retry and any(can_heal(status) for status in before.counts)):
        return before
    start = time.monotonic()
    if before is not None and not _is_intact(ledger, before):
        before = None
    with Spool(out / "images") as spool:
        final, sizes = _final(ledger, before, spool) if before is not None else ({}, {})
        row_filter = Filter(filters, duplicates=duplicates)
        work = _Work(unit, spool, row_filter, final, sizes, Previews(out, previews))
        images = row_images(
            ((row.key, row) for row in source.read(unit) if work.needs_image(row)),
            has_images=source.has_images,
            fetch=fetch,
            decode=decode,
            failed=work.record,
            share_urls=True,
        )
        for key, decoded in images:
            work.decoded(key, decoded)
        work.check()
        counts = work.counts()
        if before is not None and counts == before.counts:
            return before  # every retry failed as before
        work.previews.write(unit.id, fetch=fetch, decode=decode)
        generation = before.generation + 1 if before is not None else 0
        record = UnitRecord(
            unit=unit.id,
            files=work.write(ledger, generation),
            counts=counts,
            generation=generation,
            measured={**work.measured(), **(before.measured if before else {}), **work.described()},
            seconds=time.monotonic() - start,
        )
        ledger.commit(record)
    return record


@dataclass
class ImageStage:
    """`prepare_images` as an engine calls it: each process opens what it needs once."""

    source: Source
    out: Path
    filters: FilterConfig = field(default_factory=FilterConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    retry: bool = False
    """Retries the rows of finished units that failed for a reason that may be temporary."""
    previews: int = 2
    """Number of rejected images stored for the report, for each reason and unit."""
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
        """Returns the settings that determine the images' content, as plain JSON.

        All images in a folder have the same identity.
        """
        free = ("timeout", "workers", "memory_mb", "bucket_step")
        image = {name: x for name, x in plain(self.image).items() if name not in free}
        image |= {"buckets": plain(self.image.targets) if self.image.bucketed else []}
        open_duplicates(self.source, self.filters)  # raises if the list is of another source
        return {
            "source": source_identity(self.source),
            "filters": filters_identity(self.filters),
            "image": image,
        }

    def notes(self) -> dict[str, Any]:
        """Returns further settings for the report."""
        return {"fetch": plain(self.fetch), "not_read": list(self.source.unused)}


class _Work:
    """The rows of one unit, their images and outcomes, while the unit is done."""

    def __init__(
        self,
        unit: Unit,
        spool: Spool,
        row_filter: Filter,
        final: Mapping[str, Outcome],
        sizes: dict[str, str],
        previews: Previews,
    ) -> None:
        self.unit = unit
        self.spool = spool
        """Finished records by key."""
        self.filter = row_filter
        self.final = final
        """Outcomes of a retried unit that stay unchanged, by key."""
        self.previews = previews
        self.rows: dict[str, Row] = {}
        """All rows by key, in their order, without images."""
        self.sizes = sizes
        """Shapes of the finished images by key, as `shape_name` writes them."""
        self.outcomes: dict[str, Outcome] = {}
        self.reachability = Reachability("dns", "connect")

    def record(self, key: str, status: str, detail: str) -> None:
        """Records the outcome of a row whose image was requested."""
        self._record(key, status, detail)
        self.reachability.note(self.rows[key].url, status)

    def _record(self, key: str, status: str, detail: str = "") -> None:
        """Records the outcome of a row, which must not have one yet."""
        if key in self.outcomes:
            before = self.outcomes[key].status
            raise RuntimeError(f"row {key} has two outcomes: {before}, {status}")
        self.outcomes[key] = Outcome(key, status, _utf8(detail))

    def needs_image(self, row: Row) -> bool:
        """Registers a row, and returns whether its image is needed."""
        if row.key in self.rows:
            raise UsageError(f"the source has two rows with the key {row.key}")
        self.rows[row.key] = _without_image(row)
        if row.key in self.final:
            self.outcomes[row.key] = self.final[row.key]
            return False
        reason = reason_to_drop(row, self.filter)
        if reason is not None:
            self._record(row.key, reason, row.detail)
            self.previews.reject(reason, row)
        return reason is None

    def decoded(self, key: str, decoded: Decoded) -> None:
        """Records the row's outcome, and puts a finished image into the spool."""
        self.record(key, decoded.status, decoded.detail)
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
        statuses = Counter(outcome.status for outcome in self.outcomes.values())
        return dict(sorted(statuses.items()))

    def measured(self) -> dict[str, Any]:
        """Returns the score histograms for the report."""
        return {
            "histograms": self.filter.histograms.to_json(),
            "missing": dict(sorted(self.filter.missing.items())),
        }

    def described(self) -> dict[str, Any]:
        """Returns the number of images by shape, in the order of the shard, and the first row of
        each status other than ok."""
        examples: dict[str, str] = {}
        for key, row in self.rows.items():
            status = self.outcomes[key].status
            if status != "ok":
                examples.setdefault(status, row.name or row.url or row.origin or key)
        shapes = dict(sorted(Counter(self.sizes.values()).items()))
        return {"shapes": shapes, "examples": dict(sorted(examples.items()))}

    def write(self, ledger: Ledger, generation: int) -> dict[str, ShardInfo]:
        """Writes the unit's files, and returns their descriptions by folder.

        There is no shard if no image is kept.
        """
        unit, spool = self.unit.id, self.spool
        path = ledger.path("outcomes", unit, generation=generation)
        files = {"outcomes": write_outcomes(path, self.rows, self.outcomes)}
        if len(spool):
            path = ledger.path("images", unit, generation=generation)
            keys = sorted((key for key in self.rows if key in spool), key=self.sizes.__getitem__)
            files["images"] = write_shard(path, (spool[key] for key in keys))
        return files

    def check(self) -> None:
        """Raises `Offline` if no host was reached, and RuntimeError if a row is lost."""
        if self.reachability.is_offline() and not (self.reachability.ever or self.final):
            count = len(self.reachability.hosts)
            raise Offline(f"unit {self.unit.id}: none of {count} hosts could be reached")
        images = {key for key, outcome in self.outcomes.items() if outcome.status == "ok"}
        lost = [key for key in self.rows if key not in self.outcomes]
        lost += [key for key in images if key not in self.spool]
        if lost or len(images) != len(self.spool):
            raise RuntimeError(f"unit {self.unit.id}: {len(lost)} rows are lost: {lost[:3]}")


def _without_image(row: Row) -> Row:
    """Returns the row without its image, and with text that can be encoded as UTF-8."""
    url, origin = (None if text is None else _utf8(text) for text in (row.url, row.origin))
    name = None if row.name is None else _utf8(row.name)
    caption = _utf8(row.caption)
    return Row(row.key, url, caption, row.width, row.height, origin=origin, name=name)


def _utf8(text: str) -> str:
    """Replaces lone surrogates, which JSON can contain, with "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


# --- a retry ----------------------------------------------------------------------------------


def _is_intact(ledger: Ledger, record: UnitRecord) -> bool:
    """Returns whether the unit's files match its record, and quarantines those that do not."""
    intact = True
    for folder, info in record.files.items():
        path = ledger.root / folder / info.name
        try:
            verify_shard(path, info)
        except DamagedShard:
            quarantine(path)
            intact = False
    return intact


def _final(
    ledger: Ledger, before: UnitRecord, spool: Spool
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Returns the outcomes that a retry keeps and the shapes of the existing images, by key.

    Puts the existing images into the spool.
    """
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
