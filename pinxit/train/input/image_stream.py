"""The stream of images: filters, fetches and decodes rows, and records an outcome for each.

::

    source -> filter -> order of attempts -> fetch -> decode -> images
                                               |        |
                                               v        v
                                      counts by status, outcomes.jsonl

Images come as they arrive, not in the order of attempts. An attempt ends when its image is used:
the caller takes images, puts some of them into a batch, and calls `settle` with these. `settle`
counts and logs their rows and all rows that have failed, and returns a position that excludes them.
A stream that is opened at this position tries exactly the other rows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pinxit.config import UsageError, from_json, to_json
from pinxit.data.fetch.fetcher import FetchConfig, Fetched, fetch_all
from pinxit.data.filters.resolve import (
    is_web,
    resolved_filters,
    resolved_images,
    with_served_limits,
)
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome
from pinxit.data.reachability import Reachability
from pinxit.data.row import Row, Source
from pinxit.data.row_images import row_images
from pinxit.data.url_host import host_of
from pinxit.progress import counted
from pinxit.train.input.attempt_order import Attempt, Attempts, Position
from pinxit.train.input.outage import LEAST, Ended, Outage
from pinxit.train.input.repeated_pictures import RepeatedPictures

LOST_ROWS = 8
"""Number of consecutive attempts at hosts that had answered before, of which none answers now,
after which the connection is tested."""
DOUBTFUL_ROWS = 64
"""The same number for attempts at any hosts."""
DOUBTFUL_SECONDS = 5.0
"""Seconds of waiting without an answer after which two failures are enough for a test."""
TESTED = 4
"""Number of hosts that answered last, and of hosts that failed last, whose URLs test the
connection."""
TEST_SECONDS = 10.0
"""Longest time, in seconds, for one test of the connection."""
USELESS_ROWS = 100
"""The stream ends after four epochs without an image and this many further failures."""


class _Unreachable(Exception):
    """Ends fetching because no host can be reached."""


@dataclass(frozen=True, eq=False)
class RowImage:
    """A decoded image with its attempt."""

    attempt: Attempt
    image: UInt8[np.ndarray, "h w 3"]

    @property
    def caption(self) -> str:
        """The row's caption."""
        return self.attempt.row.caption


class Stream:
    """The images of a source, for one consumer at a time.

    An attempt that does not reach its host is not recorded before another host answers, and is
    repeated once if its host had answered before. If no host answers, the stream waits for the
    network, and then tries all attempts under way again, in their order.
    """

    def __init__(
        self,
        source: Source,
        *,
        filters: FilterConfig,
        fetch: FetchConfig,
        images: ImageConfig,
        seed: int = 0,
        start: Position | None = None,
        excluded: Iterable[str] = (),
        log: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        outage: Outage | None = None,
    ) -> None:
        """Opens the source at `start`.

        `log` gets a line for each attempted row. Existing lines after `start` are removed. `say`
        receives a warning for each unit that cannot be read. `outage` waits for the network.
        """
        start = start or Position()
        web = is_web(source)
        filters = resolved_filters(filters, web=web, targets=images.targets)
        images = resolved_images(images, web=web)
        self.outage = outage or Outage(hours=0, say=say)
        self.attempts = Attempts(
            source,
            filters,
            seed=seed,
            start=start,
            excluded=excluded,
            say=say,
            outage=self.outage,
        )
        self.source = source
        self.fetch = fetch
        self.images = with_served_limits(images, filters)
        self._repeated_pictures = RepeatedPictures(int(images.max_repeats))
        self.counts: Counter[str] = Counter(start.counts)
        """Number of rows before the position by status, including filtered rows."""
        self.log = log
        self.logged = 0 if log is None else cut_log(log, start.logged)
        self._failed: list[tuple[Attempt, str, str]] = []
        self._since_ok = 0
        self._reachability = Reachability("dns", "connect", "timeout")
        self._reachability.ever = start.counts.get("ok", 0) > 0
        self._order = iter(self.attempts)
        self._again: deque[Attempt] = deque()
        """Attempts to make before those in `_order`."""
        self._under_way: dict[int, Attempt] = {}
        """Attempts whose outcome is not known, by serial number."""
        self._doubtful: list[tuple[Attempt, Fetched]] = []
        """The attempts among them that failed since a host answered."""
        self._waited = 0.0
        """Seconds of waiting for fetched images since a host answered."""
        self._repeated: set[int] = set()
        """Serial numbers of doubtful attempts that are made a second time."""

    def row_images(self) -> Generator[RowImage, None, None]:
        """Yields images. Raises `Ended` when continuing is pointless."""
        with DecodePool(self.images) as pool:
            while True:
                images = row_images(
                    self._to_try(),
                    has_images=self.source.has_images,
                    fetch=self._fetched,
                    decode=pool.map,
                    failed=self.fail,
                )
                try:
                    with closing(images):
                        yield from self._usable(images)
                        return
                except _Unreachable:
                    self._await_network()

    def _to_try(self) -> Iterator[tuple[Attempt, Row]]:
        """Yields the attempts that are made again, then new ones."""
        while True:
            attempt = self._again.popleft() if self._again else next(self._order)
            self._under_way[attempt.serial] = attempt
            yield attempt, attempt.row

    def _usable(self, images: Iterable[tuple[Attempt, Decoded]]) -> Iterator[RowImage]:
        """Yields the usable images, and ends the attempts of the others."""
        for attempt, decoded in images:
            if attempt.row.key in self.attempts.excluded:
                self._forget(attempt)
                self.attempts.end([attempt])  # it was already in progress when its row was held out
            elif decoded.image is None:
                self.fail(attempt, decoded.status, decoded.detail)
            elif self._repeated_pictures.is_placeholder(attempt.row, decoded.body):
                host = host_of(attempt.row.url or attempt.row.origin)
                self.fail(attempt, "placeholder", f"{host} served this picture for other URLs")
            else:
                self._since_ok = 0
                self._forget(attempt)
                yield RowImage(attempt, decoded.image)

    def fail(self, attempt: Attempt, status: str, detail: str) -> None:
        """Records an attempt without an image."""
        Outcome(attempt.row.key, status, detail)  # refuses unknown statuses
        self._forget(attempt)
        self._failed.append((attempt, status, detail))
        self._since_ok += 1
        self._check()

    def _forget(self, attempt: Attempt) -> None:
        """Notes that an attempt's outcome is known."""
        self._under_way.pop(attempt.serial, None)
        self._repeated.discard(attempt.serial)

    def _fetched(self, links: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        """Fetches URLs, and withholds failures until a host answers. Raises `_Unreachable` if none
        does."""
        unreached = self._reachability
        with closing(fetch_all(links, config=self.fetch)) as results:
            start = time.monotonic()
            for (attempt,), fetched in results:
                self._waited += time.monotonic() - start
                if fetched.reached is None:
                    yield (attempt,), fetched
                elif fetched.reached:
                    unreached.answered(attempt.row.url)
                    yield (attempt,), fetched
                    yield from self._released(again=False)
                else:
                    unreached.failed(attempt.row.url)
                    self._doubtful.append((attempt, fetched))
                    yield from self._examined()
                start = time.monotonic()

    def _examined(self) -> Iterator[tuple[Any, Fetched]]:
        """Tests the connection after many failures in a row. Yields the failures that are certain,
        and raises `_Unreachable` if no host answers."""
        unreached = self._reachability
        lost, many = unreached.lost >= LOST_ROWS, unreached.attempts >= DOUBTFUL_ROWS
        if not lost and not many and (self._waited < DOUBTFUL_SECONDS or unreached.attempts < 2):
            return
        if not self.outage.tested(self._is_network_up):
            raise _Unreachable
        yield from self._released(again=lost)
        unreached.restart()

    def _released(self, *, again: bool) -> Iterator[tuple[Any, Fetched]]:
        """Yields the failures that were withheld, since the network works. It may have been down
        for a moment, so rows of hosts that had answered, or all rows with `again`, are tried once
        more."""
        self._waited = 0.0
        doubtful, self._doubtful = self._doubtful, []
        for attempt, fetched in doubtful:
            repeat = again or self._reachability.has_answered(attempt.row.url)
            if repeat and attempt.serial not in self._repeated:
                self._repeated.add(attempt.serial)
                self._again.append(attempt)
            else:
                yield (attempt,), fetched

    def _is_network_up(self) -> bool:
        """Returns whether any of the hosts answers that answered last or failed last."""
        failed = {host_of(attempt.row.url): attempt.row.url for attempt, _ in self._doubtful}
        urls = [*self._reachability.latest(TESTED), *list(failed.values())[-TESTED:]]
        timeout = min(self.fetch.timeout, TEST_SECONDS)
        test = dataclasses.replace(self.fetch, concurrency=len(urls), retries=0, timeout=timeout)
        with closing(fetch_all(((url, url or "") for url in urls), config=test)) as results:
            return any(fetched.reached for _, fetched in results)

    def _await_network(self) -> None:
        """Waits until a host can be reached, and arranges that all attempts under way are made
        again, in their order."""
        unreached, (attempt, fetched) = self._reachability, self._doubtful[-1]
        self.outage.wait(
            f"none of {counted(len(unreached.hosts), 'host')} could be reached in "
            f"{unreached.attempts} consecutive attempts (the last: {attempt.row.url}: "
            f"{fetched.status}: {fetched.detail})",
            "the network",
            self._is_network_up,
            limit=None if unreached.ever else LEAST,
        )
        unreached.restart()
        self._waited = 0.0
        self._doubtful.clear()
        self._repeated.clear()
        self._again = deque(self._under_way[serial] for serial in sorted(self._under_way))

    def settle(self, used: Sequence[Attempt]) -> Position:
        """Ends these attempts and the failed ones, and returns the position after them."""
        ends = [(attempt, "ok", "") for attempt in used]
        ends += self._failed
        self._failed = []
        self.attempts.end(attempt for attempt, _, _ in ends)
        self.counts.update(self.attempts.filtered)
        self.attempts.filtered.clear()
        self.counts.update(status for _, status, _ in ends)
        self._write(ends)
        return self.attempts.position(counts=dict(self.counts), logged=self.logged)

    def _write(self, ends: Iterable[tuple[Attempt, str, str]]) -> None:
        if self.log is None:
            return
        lines = []
        for attempt, status, detail in ends:
            line = {"key": attempt.row.key, "status": status}
            lines.append(json.dumps(line | ({"detail": detail} if detail else {})) + "\n")
        data = "".join(lines).encode()
        with self.log.open("ab") as file:
            file.write(data)
        self.logged += len(data)

    def _check(self) -> None:
        """Raises `Ended` if continuing is pointless, because several epochs had no image."""
        epoch = self.attempts.epoch_attempts
        if epoch is not None and self._since_ok >= 4 * epoch + USELESS_ROWS:
            raise Ended(
                f"no image in {self._since_ok} consecutive attempts, although only {epoch} rows of "
                f"{self.source.name} pass the filters ({self._failures()})"
            )

    def _failures(self) -> str:
        """Returns the latest failures by status and the last one in full, for a message."""
        counts = Counter(status for _, status, _ in self._failed)
        attempt, _, detail = self._failed[-1]
        statuses = ", ".join(f"{status} {count}" for status, count in counts.most_common(4))
        return f"{statuses}, the last: {attempt.row.url or attempt.row.key}: {detail}"


def cut_log(log: Path, size: int) -> int:
    """Removes the lines of a log after the first `size` bytes, and returns its new size."""
    if not log.is_file():
        return 0
    if log.stat().st_size > size:
        os.truncate(log, size)
    return log.stat().st_size


FORMER_FIELDS = {"given": "yielded"}
"""Names of a position's fields in checkpoints of older versions, and their present names."""


def pack_position(position: Position, revision: str | None) -> dict[str, Any]:
    """Returns a position as JSON for a checkpoint."""
    return {**to_json(position), "revision": revision}


def unpack_position(packed: dict[str, Any], revision: str | None) -> Position:
    """Returns the position that `pack_position` packed. Raises if the dataset's revision has
    changed."""
    if packed.get("revision") != revision:
        raise UsageError(
            f"resume: the run was started on revision {packed.get('revision')} of its dataset, but "
            f"this is revision {revision}. Restore the original files, or start a new run with "
            "--name"
        )
    packed = {FORMER_FIELDS.get(name, name): value for name, value in packed.items()}
    fields = {field.name for field in dataclasses.fields(Position)}
    if missing := sorted(fields - packed.keys()):
        raise UsageError("resume", missing, problem="missing in the checkpoint's position")
    counts = {str(name): int(count) for name, count in packed.get("counts", {}).items()}
    plain = {name: value for name, value in packed.items() if name in fields - {"counts"}}
    return dataclasses.replace(from_json(Position, plain), counts=counts)
