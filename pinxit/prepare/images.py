"""The first stage of preparation: converts a unit of a source to a shard of images.

::

    rows -> filter -> fetch -> decode, crop -> images/<unit>.array_record   kept images, as JPEG
                                               outcomes/<unit>.parquet      an outcome for every row
                                               units/images/log-*.jsonl     the commit record

A unit depends only on itself, and its files are in the order of its rows, not of the web's replies.
So the same input gives the same bytes for every engine and number of workers, and however often the
work was killed. The commit record is written last, and a unit without one is done again. A shard
holds the images of one size together, in order. There are several sizes with aspect-ratio buckets.

A retry tries the rows again whose failure may be temporary, and leaves all others unchanged. The
unit's new files exist beside the old ones until the record switches to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import plain
from pinxit.data.fetch.fetcher import FetchConfig
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
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import can_heal
from pinxit.data.patient_fetch import PatientFetch, pauses_within
from pinxit.data.row import Source, Unit, source_identity
from pinxit.data.row_images import DecodeFn, FetchFn, row_images
from pinxit.prepare.finished_rows import FinishedRows, finished_rows
from pinxit.prepare.known_hosts import known_hosts
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.network_wait import Doubtful, NetworkWait, Offline
from pinxit.prepare.process_network import ProcessNetwork
from pinxit.prepare.rejected_previews import Previews
from pinxit.prepare.spool import Spool
from pinxit.prepare.unit_rows import UnitRows
from pinxit.prepare.unreachable_share import UsualCounts, reason_to_doubt
from pinxit.prepare.verify_units import is_intact

OPEN_UNITS = 8
"""Number of units of a source on the web that a process has open. Each has its rows in memory
(about 1 kB a row), its finished images in a temporary file, which is one open file, and at most
`decode_pool.AHEAD_BYTES` for each decoding process; those that wait for stragglers have almost
none. The memory for bodies that were fetched is bounded for all of them together. At 500 URLs a
second a unit of 2,500 URLs is requested in 5 seconds, and then waits 15 seconds for hosts that
hang, so fewer open units would be too few."""


def _nothing() -> None:
    """Ignores that a unit is drained."""


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
    patient: PatientFetch | None = None,
    drained: Callable[[], object] = _nothing,
    doubt: bool = False,
    usual: UsualCounts | None = None,
) -> UnitRecord:
    """Does a unit, unless it is done, and returns its record.

    With `retry`, a unit that is done is tried again if rows of it failed for a reason that may be
    temporary. If a file of it is damaged, the file is quarantined and all rows are done again. Up
    to `previews` rejected images for each reason are stored for the report, from the first units.
    Rows that are listed in `duplicates` are dropped, and pictures that more than `max_repeats` URLs
    of one host lead to. Images of `hidden_domains` are not shown in the report.

    `patient` fetches the images, and waits for the network if it is away; without it `fetch` is
    used, and nothing is waited for. `drained` is called when the source has been read and all URLs
    were handed to the fetcher. Raises `files.DiskFull`, `Offline`, and with `doubt`, `Doubtful` for
    a unit whose unreachable rows stand out from those of `usual`.
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
        work = UnitRows(unit, spool, row_filter, finished, shown)
        if patient is None:
            wait, pauses = NetworkWait(0.0), pauses_within(0.0)
            patient = PatientFetch(fetch, probe=fetch, wait=wait, last_pauses=pauses)
        _do_rows(work, source, patient, decode, drained)
        work.drop_placeholders(max_repeats)
        work.check()
        counts = work.counts()
        if before is not None and counts == before.counts:
            return before  # every retry failed as before
        if before is None:
            _check_network(work, ledger, patient, doubt=doubt, usual=usual)
        work.previews.write(unit.id, fetch=fetch, decode=decode)
        return _commit(work, ledger, before, start)


def _do_rows(
    work: UnitRows,
    source: Source,
    fetch: FetchFn,
    decode: DecodeFn,
    drained: Callable[[], object],
) -> None:
    """Fetches and decodes the images of all rows that need one. Calls `drained` when the last URL
    was handed to `fetch`, which may be long before the last result."""

    def requests(links: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
        yield from links
        drained()

    images = row_images(
        ((row.key, row) for row in source.read(work.unit) if work.needs_image(row)),
        has_images=source.has_images,
        fetch=lambda links: fetch(requests(links)),
        decode=decode,
        failed=work.record,
        share_urls=True,
    )
    for key, decoded in images:
        work.decoded(key, decoded)


def _commit(work: UnitRows, ledger: Ledger, before: UnitRecord | None, start: float) -> UnitRecord:
    """Writes the files of a unit that was begun at `start`, and its record in place of `before`."""
    # a unit that is made again because of damage gets the names that it had
    lost = ledger.read(work.unit.id)
    generation = lost.generation if lost is not None else 0
    generation = before.generation + 1 if before is not None else generation
    record = UnitRecord(
        unit=work.unit.id,
        files=work.write(ledger, generation),
        counts=work.counts(),
        generation=generation,
        measured={**work.measured(), **(before.measured if before else {}), **work.described()},
        seconds=time.monotonic() - start,
    )
    ledger.commit(record)
    return record


@dataclass
class _Opened:
    """The objects that a process opens once for all its units."""

    dropped: Duplicates | None
    network: ProcessNetwork
    pool: DecodePool
    usual: UsualCounts = field(default_factory=UsualCounts)


@dataclass
class ImageStage:
    """`prepare_images` as an engine calls it: each process opens what it needs once.

    It is `Overlapping` for sources on the web.
    """

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
    open_units: int = OPEN_UNITS
    """Number of units that a process has open at the same time; 1 if the rows hold their images,
    which leaves nothing to wait for."""
    _opened: _Opened | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Chooses the settings that depend on the source, or takes those of the folder."""
        stored = Ledger(self.out, "images").identity() or {}
        web = is_web(self.source)
        self.filters = resolved_filters(
            self.filters, web=web, targets=self.image.targets, stored=stored.get("filters")
        )
        self.image = resolved_images(self.image, web=web, stored=stored.get("image"))
        if self.source.has_images:
            self.open_units = 1

    def __call__(self, unit: Unit, drained: Callable[[], object] = _nothing) -> UnitRecord:
        opened = self._open()
        return prepare_images(
            unit,
            self.source,
            self.out,
            filters=self.filters,
            fetch=opened.network.fetch,
            decode=opened.pool.map,
            retry=self.retry,
            previews=self.previews,
            duplicates=opened.dropped,
            max_repeats=int(self.image.max_repeats),
            hidden_domains=self.fetch.blocked_domains,
            patient=opened.network.patient(),
            drained=drained,
            doubt=self.doubt,
            usual=opened.usual,
        )

    def _open(self) -> _Opened:
        """Returns what the process opens once. A unit begins only after the one before is drained,
        so no two units open it at the same time."""
        if self._opened is None:
            self._opened = _Opened(
                open_duplicates(self.source, self.filters),
                ProcessNetwork(self.fetch, outage_seconds=3600 * self.outage_hours),
                DecodePool(with_served_limits(self.image, self.filters)).__enter__(),
            )
        network = self._opened.network
        if not (self.source.has_images or network.known.ever):
            network.learn(known_hosts(Ledger(self.out, "images")))
        return self._opened

    def close(self) -> None:
        """Ends the requests and the decoding processes."""
        if self._opened is not None:
            self._opened.network.close()
            self._opened.pool.close()
            self._opened = None

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


def _check_network(
    work: UnitRows,
    ledger: Ledger,
    patient: PatientFetch,
    *,
    doubt: bool,
    usual: UsualCounts | None,
) -> None:
    """Raises `Offline` if many hosts were tried and none was reached, and with `doubt`, `Doubtful`
    if the unreachable rows may be an outage's."""
    unit = work.unit.id
    if patient.reachability.is_offline() and not patient.reached:
        count = len(patient.reachability.hosts)
        raise Offline(f"unit {unit}: none of {count} hosts could be reached")
    if not doubt:
        return
    hosts, counts = work.unreached(), work.counts()
    reached = patient.reached
    reason = reason_to_doubt(ledger, unit, counts, unreached=hosts, reached=reached, usual=usual)
    if reason is not None:
        raise Doubtful(f"unit {unit}: {reason}; it is tried again at the end")
