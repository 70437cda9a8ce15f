"""The stream of images: filters, fetches and decodes rows, and records an outcome for each.

::

    source -> filter -> order of attempts -> fetch -> decode -> images
                                               |        |
                                               v        v
                                      counts by status, outcomes.jsonl

Images come as they arrive, not in the order of attempts. An attempt ends when its image is used:
the caller takes images, puts some of them into a batch, and calls `settle` with these. `settle`
counts and logs their rows and all rows that have failed, and returns the progress of this process.
Streams that are opened at the position after the progress of all processes try exactly the other
rows.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pinxit.config import UsageError, from_json, to_json
from pinxit.data.fetch.fetcher import FetchConfig, Fetched
from pinxit.data.fetch.shared_fetcher import fetch_all
from pinxit.data.filters.resolve import (
    is_web,
    resolved_filters,
    resolved_images,
    with_served_limits,
)
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome, is_dropped
from pinxit.data.patient_fetch import PatientFetch, probing
from pinxit.data.row import Source
from pinxit.data.row_images import row_images
from pinxit.data.url_host import host_of
from pinxit.train.input.attempt_order import Attempt, Attempts
from pinxit.train.input.outage import LEAST, Ended, Outage
from pinxit.train.input.portions import Position, StreamProgress, from_serial_numbers
from pinxit.train.input.repeated_pictures import RepeatedPictures

USELESS_ROWS = 100
"""The stream ends after four epochs without an image and this many further failures."""


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
    network, and then requests all URLs under way again, in their order (see `PatientFetch`).
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
        process: int = 0,
        processes: int = 1,
        log: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        outage: Outage | None = None,
    ) -> None:
        """Opens the source at `start`, for process number `process` of `processes`.

        `log` gets a line for each row that this process tries. Existing lines after `start` are
        removed. `say` receives a warning for each unit that cannot be read. `outage` waits for the
        network.
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
            process=process,
            processes=processes,
            say=say,
            outage=self.outage,
        )
        self.source = source
        self.fetch = fetch
        self.images = with_served_limits(images, filters)
        self._repeated_pictures = RepeatedPictures(int(images.max_repeats))
        self.counts: Counter[str] = Counter()
        """Number of rows that have ended since the start by status, including filtered rows."""
        self.log = log
        self.logged = 0 if log is None else cut_log(log, start.logged.get(str(process), 0))
        self._failed: list[tuple[Attempt, str, str]] = []
        self._since_ok = 0
        self._order = iter(self.attempts)
        self.patient = PatientFetch(
            self._fetch,
            probe=self._probe,
            wait=self._await_network,
            tested=self.outage.tested,
        )
        """Fetches, and waits for the network."""
        self.patient.reachability.ever = start.counts.get("ok", 0) > 0

    def row_images(self) -> Generator[RowImage, None, None]:
        """Yields images. Raises `Ended` when continuing is pointless."""
        with DecodePool(self.images) as pool:
            images = row_images(
                ((attempt, attempt.row) for attempt in self._order),
                has_images=self.source.has_images,
                fetch=self.patient,
                decode=pool.map,
                failed=self.fail,
            )
            with closing(images):
                yield from self._usable(images)

    def _usable(self, images: Iterable[tuple[Attempt, Decoded]]) -> Iterator[RowImage]:
        """Yields the usable images, and ends the attempts of the others."""
        for attempt, decoded in images:
            if attempt.row.key in self.attempts.excluded:
                self.attempts.end([attempt])  # it was already in progress when its row was held out
            elif decoded.image is None:
                self.fail(attempt, decoded.status, decoded.detail)
            elif self._repeated_pictures.is_placeholder(attempt.row, decoded.body):
                host = host_of(attempt.row.url or attempt.row.origin)
                self.fail(attempt, "placeholder", f"{host} served this picture for other URLs")
            else:
                self._since_ok = 0
                yield RowImage(attempt, decoded.image)

    def fail(self, attempt: Attempt, status: str, detail: str) -> None:
        """Records an attempt without an image."""
        Outcome(attempt.row.key, status, detail)  # refuses unknown statuses
        with self.attempts.lock:
            self._failed.append((attempt, status, detail))
            self._since_ok += 1
            self._check()

    def _fetch(self, links: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        """Fetches URLs."""
        return fetch_all(links, config=self.fetch)

    def _probe(self, links: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        """Requests URLs that test the connection."""
        return fetch_all(links, config=probing(self.fetch))

    def _await_network(self, problem: str, is_over: Callable[[], bool]) -> None:
        """Waits until a host can be reached."""
        limit = None if self.patient.reachability.ever else LEAST
        self.outage.wait(problem, "the network", is_over, limit=limit)

    def settle(self, used: Sequence[Attempt]) -> StreamProgress:
        """Ends these attempts and the failed ones, and returns the progress after them."""
        with self.attempts.lock:
            ends = [(attempt, "ok", "") for attempt in used]
            ends += self._failed
            self._failed = []
            self.attempts.end(attempt for attempt, _, _ in ends)
            self.counts.update(self.attempts.filtered)
            self.attempts.filtered.clear()
            self.counts.update(status for _, status, _ in ends)
            self._write(ends)
            return self.attempts.progress(counts=dict(self.counts), logged=self.logged)

    def figures(self) -> dict[str, int]:
        """Returns numbers of rows of this process since the start: those tried, those that yielded
        an image, those read, and those of the read ones that were filtered out."""
        counts = dict(self.counts)  # copied, because another thread adds to it
        return {
            "tried": tried(counts),
            "ok": counts.get("ok", 0),
            "read": self.attempts.read,
            "dropped": self.attempts.dropped,
        }

    def position(self, progress: Sequence[StreamProgress]) -> Position:
        """Returns the position after the progress of all processes."""
        return self.attempts.dealing.merged(progress)

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


def tried(counts: Mapping[str, int]) -> int:
    """Returns how many rows were tried, from the numbers of rows by status."""
    return sum(count for status, count in counts.items() if not is_dropped(status))


def cut_log(log: Path, size: int) -> int:
    """Removes the lines of a log after the first `size` bytes, and returns its new size."""
    if not log.is_file():
        return 0
    if log.stat().st_size > size:
        os.truncate(log, size)
    return log.stat().st_size


def pack_position(position: Position, revision: str | None) -> dict[str, Any]:
    """Returns a position as JSON for a checkpoint."""
    return {**to_json(position), "revision": revision}


def unpack_position(packed: Mapping[str, Any], source: Source) -> Position:
    """Returns the position that `pack_position` packed, or an older version. Raises if the
    dataset's revision has changed."""
    if packed.get("revision") != source.revision:
        raise UsageError(
            f"resume: the run was started on revision {packed.get('revision')} of its dataset, but "
            f"this is revision {source.revision}. Restore the original files, or start a new run "
            "with --name"
        )
    packed = {"yielded" if name == "given" else name: value for name, value in packed.items()}
    is_older = "portions" not in packed and "unit" in packed
    fields = OLDER_FIELDS if is_older else {field.name for field in dataclasses.fields(Position)}
    if missing := sorted(fields - packed.keys()):
        raise UsageError("resume", missing, problem="missing in the checkpoint's position")
    counts = {str(name): int(count) for name, count in packed["counts"].items()}
    if is_older:
        position = from_serial_numbers(packed, len(source.units()))
        logged = {"0": int(packed["logged"])}
    else:
        plain = {name: value for name, value in packed.items() if name in ("portions", "next")}
        position = from_json(Position, plain)
        logged = {str(process): int(size) for process, size in packed["logged"].items()}
    return dataclasses.replace(position, counts=counts, logged=logged)


OLDER_FIELDS = {"epoch", "unit", "row", "tried", "waiting", "yielded", "opened", "counts", "logged"}
"""Names of a position's fields in checkpoints of older versions."""
