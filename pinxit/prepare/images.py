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

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError, plain
from pinxit.data.fetch.fetcher import UNREACHED, FetchConfig, fetch_all
from pinxit.data.filters.duplicate_list import filters_identity, open_duplicates
from pinxit.data.filters.resolve import (
    MAX_REPEATS,
    images_identity,
    is_web,
    resolved_filters,
    resolved_images,
    with_served_limits,
)
from pinxit.data.filters.row_filter import Duplicates, Filter, FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig, encode_image
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome, can_heal
from pinxit.data.patient_fetch import PatientFetch, pauses_within, probing
from pinxit.data.prepared.shards import (
    ShardInfo,
    pack,
    shape_name,
    unpack,
    write_shard,
)
from pinxit.data.reachability import Reachability
from pinxit.data.row import Row, Source, Unit, source_identity
from pinxit.data.row_images import DecodeFn, FetchFn, reason_to_drop, row_images
from pinxit.data.url_host import host_of
from pinxit.prepare.finished_rows import FinishedRows, finished_rows, is_enlarged
from pinxit.prepare.known_hosts import known_hosts
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.network_wait import Doubtful, NetworkWait, Offline
from pinxit.prepare.outcome_files import write_outcomes
from pinxit.prepare.placeholders import Fingerprint, find_placeholders
from pinxit.prepare.rejected_previews import Previews
from pinxit.prepare.spool import Spool
from pinxit.prepare.unreachable_share import reason_to_doubt
from pinxit.prepare.verify_units import is_intact

QUALITY = 95
"""The quality of the JPEG images in the shards."""


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
    max_repeats: int = MAX_REPEATS,
    hidden_domains: Sequence[str] = (),
    probe: FetchFn | None = None,
    reachability: Reachability | None = None,
    outage_seconds: float = 0.0,
    doubt: bool = False,
) -> UnitRecord:
    """Does a unit, unless it is done, and returns its record.

    With `retry`, a unit that is done is tried again if rows of it failed for a reason that may be
    temporary. If a file of it is damaged, the file is quarantined and all rows are done again. Up
    to `previews` rejected images for each reason are stored for the report, from the first units.
    Rows that are listed in `duplicates` are dropped, and pictures that more than `max_repeats` URLs
    of one host lead to. Images of `hidden_domains` are not shown in the report.

    If the network is away, or hosts that are known to `reachability`, they are tested with `probe`
    and waited for, for at most `outage_seconds`. Raises `files.DiskFull`, `Offline`, and with
    `doubt`, `Doubtful` for a unit whose unreachable rows stand out.
    """
    ledger = Ledger(out, "images")
    before = ledger.done(unit.id)
    if before is not None and not (retry and any(can_heal(status) for status in before.counts)):
        return before
    start = time.monotonic()
    if before is not None and not is_intact(out, before):
        before = None
    with Spool(out / "images") as spool:
        finished = finished_rows(ledger, before, spool) if before is not None else FinishedRows()
        row_filter = Filter(filters, duplicates=duplicates)
        shown = Previews(out, previews, blocked_domains=hidden_domains)
        work = _Work(unit, spool, row_filter, finished, shown)
        patient = PatientFetch(
            fetch,
            probe=probe or fetch,
            wait=NetworkWait(outage_seconds),
            reachability=reachability,
            last_pauses=pauses_within(outage_seconds),
        )
        images = row_images(
            ((row.key, row) for row in source.read(unit) if work.needs_image(row)),
            has_images=source.has_images,
            fetch=patient,
            decode=decode,
            failed=work.record,
            share_urls=True,
        )
        for key, decoded in images:
            work.decoded(key, decoded)
        work.drop_placeholders(max_repeats)
        work.check()
        if before is None:
            _check_reached(patient, unit)
        counts = work.counts()
        if before is not None and counts == before.counts:
            return before  # every retry failed as before
        if doubt and before is None:
            hosts = work.unreached()
            _check_share(ledger, unit, counts, unreached=hosts, reached=patient.reached)
        work.previews.write(unit.id, fetch=fetch, decode=decode)
        # a unit that is made again because of damage gets the names that it had
        lost = ledger.read(unit.id)
        generation = lost.generation if lost is not None else 0
        generation = before.generation + 1 if before is not None else generation
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
    outage_hours: float = 6.0
    """Hours that a unit waits for the network."""
    doubt: bool = True
    """Refuses units in which far more hosts could not be reached than in the others."""
    _pool: DecodePool | None = field(default=None, init=False, repr=False)
    _dropped: Duplicates | None = field(default=None, init=False, repr=False)
    _reachability: Reachability | None = field(default=None, init=False, repr=False)
    """The hosts that have answered this process."""

    def __post_init__(self) -> None:
        """Chooses the settings that depend on the source, or takes those of the folder."""
        stored = Ledger(self.out, "images").identity() or {}
        web = is_web(self.source)
        self.filters = resolved_filters(
            self.filters, web=web, targets=self.image.targets, stored=stored.get("filters")
        )
        self.image = resolved_images(self.image, web=web, stored=stored.get("image"))

    def __call__(self, unit: Unit) -> UnitRecord:
        if self._reachability is None or not self._reachability.ever:
            self._reachability = known_hosts(Ledger(self.out, "images"))
        if self._pool is None:
            self._pool = DecodePool(with_served_limits(self.image, self.filters)).__enter__()
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
            max_repeats=int(self.image.max_repeats),
            hidden_domains=self.fetch.blocked_domains,
            probe=partial(fetch_all, config=probing(self.fetch)),
            reachability=self._reachability,
            outage_seconds=3600 * self.outage_hours,
            doubt=self.doubt,
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
        open_duplicates(self.source, self.filters)  # raises if the list is of another source
        return {
            "source": source_identity(self.source),
            "filters": filters_identity(self.filters),
            "image": images_identity(self.image),
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
        finished: FinishedRows,
        previews: Previews,
    ) -> None:
        self.unit = unit
        self.spool = spool
        """Finished records by key."""
        self.filter = row_filter
        self.finished = finished
        """The rows of a retried unit that are not tried again."""
        self.previews = previews
        self.rows: dict[str, Row] = {}
        """All rows by key, in their order, without images."""
        self.sizes = finished.sizes
        """Shapes of the finished images by key, as `shape_name` writes them."""
        self.prints = finished.prints
        """Fingerprints of the decoded images by key."""
        self.enlarged = finished.enlarged
        """Keys of the images that are smaller than their targets."""
        self.outcomes: dict[str, Outcome] = {}

    def record(self, key: str, status: str, detail: str = "") -> None:
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
        if row.key in self.finished.outcomes:
            self.outcomes[row.key] = self.finished.outcomes[row.key]
            return False
        reason = reason_to_drop(row, self.filter)
        if reason is not None:
            self.record(row.key, reason, row.detail)
            self.previews.reject(reason, row, self.filter)
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
            self.prints[key] = Fingerprint(decoded.body, decoded.look)
            if is_enlarged(decoded.crop, decoded.image.shape):
                self.enlarged.add(key)
            self.spool[key] = pack({"jpeg": np.frombuffer(jpeg, np.uint8)}, meta)

    def drop_placeholders(self, most: int) -> None:
        """Drops the pictures that more than `most` URLs of one host led to.

        The rows that a retry does not try again take part, so that the result is the same as if all
        rows had been tried at once.
        """
        for card in find_placeholders(self.rows, self.prints, most):
            first = card.keys[0]
            if first in self.spool:
                jpeg = unpack(self.spool[first])[0]["jpeg"].tobytes()
                caption = f"{card.detail}: {self.rows[first].caption}"
                self.previews.show("placeholder", first, caption, jpeg)
            for key in card.keys:
                self.outcomes[key] = Outcome(key, "placeholder", card.detail)
                if key in self.spool:
                    del self.spool[key], self.sizes[key]
                    self.enlarged.discard(key)

    def counts(self) -> dict[str, int]:
        """Returns the number of rows by status."""
        statuses = Counter(outcome.status for outcome in self.outcomes.values())
        return dict(sorted(statuses.items()))

    def unreached(self) -> Counter[str]:
        """Returns the number of rows that did not reach their host, by host."""
        rows = (row for key, row in self.rows.items() if self.outcomes[key].status in UNREACHED)
        return Counter(host_of(row.url) for row in rows)

    def measured(self) -> dict[str, Any]:
        """Returns the score histograms for the report."""
        return {
            "histograms": self.filter.histograms.to_json(),
            "missing": dict(sorted(self.filter.missing.items())),
        }

    def described(self) -> dict[str, Any]:
        """Returns the number of images by shape, in the order of the shard, the first row of each
        status other than ok, and the number of enlarged images with the first one."""
        examples: dict[str, str] = {}
        for key, row in self.rows.items():
            status = self.outcomes[key].status
            if status != "ok":
                examples.setdefault(status, _name(row))
        shapes = dict(sorted(Counter(self.sizes.values()).items()))
        first = next((_name(row) for key, row in self.rows.items() if key in self.enlarged), "")
        return {
            "shapes": shapes,
            "examples": dict(sorted(examples.items())),
            "enlarged": {"rows": len(self.enlarged), "example": first},
        }

    def write(self, ledger: Ledger, generation: int) -> dict[str, ShardInfo]:
        """Writes the unit's files, and returns their descriptions by folder.

        There is no shard if no image is kept.
        """
        unit, spool = self.unit.id, self.spool
        path = ledger.path("outcomes", unit, generation=generation)
        files = {"outcomes": write_outcomes(path, self.rows, self.outcomes, self.prints)}
        if len(spool):
            path = ledger.path("images", unit, generation=generation)
            keys = sorted((key for key in self.rows if key in spool), key=self.sizes.__getitem__)
            files["images"] = write_shard(path, (spool[key] for key in keys))
        return files

    def check(self) -> None:
        """Raises RuntimeError if a row is lost."""
        images = {key for key, outcome in self.outcomes.items() if outcome.status == "ok"}
        lost = [key for key in self.rows if key not in self.outcomes]
        lost += [key for key in images if key not in self.spool]
        if lost or len(images) != len(self.spool):
            raise RuntimeError(f"unit {self.unit.id}: {len(lost)} rows are lost: {lost[:3]}")


def _check_reached(patient: PatientFetch, unit: Unit) -> None:
    """Raises `Offline` if many hosts were tried and none was reached."""
    if patient.reachability.is_offline() and not patient.reached:
        count = len(patient.reachability.hosts)
        raise Offline(f"unit {unit.id}: none of {count} hosts could be reached")


def _check_share(ledger: Ledger, unit: Unit, counts: Mapping[str, int], **hosts: Any) -> None:
    """Raises `Doubtful` if the unreachable rows of a unit may be an outage's."""
    if reason := reason_to_doubt(ledger, unit.id, counts, **hosts):
        raise Doubtful(f"unit {unit.id}: {reason}; it is tried again at the end")


def _without_image(row: Row) -> Row:
    """Returns the row without its image, and with text that can be encoded as UTF-8."""
    url, origin = (None if text is None else _utf8(text) for text in (row.url, row.origin))
    name = None if row.name is None else _utf8(row.name)
    caption = _utf8(row.caption)
    return Row(row.key, url, caption, row.width, row.height, origin=origin, name=name)


def _name(row: Row) -> str:
    """Returns the name that a person finds the row by."""
    return row.name or row.url or row.origin or row.key


def _utf8(text: str) -> str:
    """Replaces lone surrogates, which JSON can contain, with "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
