"""From attempts to images: filter, fetch, decode, and an end for every row that was tried.

::

    source -> filter -> order of attempts -> fetch -> decode -> images
                                               |        |
                                               v        v
                                      counts by status, outcomes.jsonl

Images come as they arrive, not in the order of attempts. What they are used for decides when a row
has ended: the caller takes images, puts some of them into a batch, and says so (`settle`); from
that moment these rows, and all that failed until then, are counted, logged and behind the position.
A stream that is opened at this position tries exactly the others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8

from pinxit.config import from_json, to_json
from pinxit.data.fetch.fetcher import FetchConfig, fetch_all
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome
from pinxit.data.row import Source
from pinxit.train.input.attempt_order import Attempt, Attempts, Position

UNREACHED = frozenset({"dns", "connect", "timeout"})
PAUSE_ROWS = 64
"""After so many rows in a row that reached nobody, there is a pause: it may be over soon."""
PAUSE = 2.0
"""Seconds of the first pause; the next ones are twice as long, up to `LONGEST`."""
LONGEST = 32.0
OFFLINE_ROWS = 400
OFFLINE_HOSTS = 20
"""So many failures in a row, at so many hosts, are the network's fault and not the hosts'."""
USELESS_ROWS = 100
"""So many failures beyond four epochs of them say that a dataset is dead."""


class Ended(ValueError):
    """Why a stream gives no more images."""


@dataclass(frozen=True, eq=False)
class Found:
    """An image, and the row it is of."""

    attempt: Attempt
    image: UInt8[np.ndarray, "h w 3"]

    @property
    def caption(self) -> str:
        """The row's caption."""
        return self.attempt.row.caption


class Stream:
    """The images of a source, one consumer at a time."""

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
        sleep: Callable[[float], Any] = time.sleep,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`log` gets a line for each row that was tried; what is behind `start` is cut off. `say`
        is told of units that cannot be read."""
        start = start or Position()
        self.attempts = Attempts(
            source, filters, seed=seed, start=start, excluded=excluded, sleep=sleep, say=say
        )
        self.source = source
        self.fetch = fetch
        self.images = images
        self.counts: Counter[str] = Counter(start.counts)
        """Rows by status, filtered ones included, that are behind the position."""
        self.log = log
        self.logged = 0 if log is None else cut(log, start.logged)
        self._failed: list[tuple[Attempt, str, str]] = []
        self._since_ok = 0
        self._unreached: set[str] = set()
        self._unreached_rows = 0
        self._sleep = sleep

    def found(self) -> Generator[Found, None, None]:
        """The images, without end. Raises `Ended` when there is no use in going on."""
        with DecodePool(self.images) as pool:
            bodies = self._borne() if self.source.bears_images else self._fetched()
            for attempt, decoded in pool.map(bodies):
                if attempt.row.key in self.attempts.excluded:
                    self.attempts.end([attempt])  # under way when it was set aside
                elif decoded.image is None:
                    self.fail(attempt, decoded.status, decoded.detail)
                else:
                    self._since_ok = 0
                    self._reached()
                    yield Found(attempt, decoded.image)

    def fail(self, attempt: Attempt, status: str, detail: str) -> None:
        """An attempt came to nothing."""
        Outcome(attempt.row.key, status, detail)  # refuses words that are none
        self._failed.append((attempt, status, detail))
        self._since_ok += 1
        if status in UNREACHED:
            self._unreached.add(urlsplit(attempt.row.url or "").netloc)
            self._unreached_rows += 1
        else:
            self._reached()
        self._check()
        pauses, rest = divmod(self._unreached_rows, PAUSE_ROWS)
        if pauses and not rest:
            self._sleep(min(PAUSE * 2 ** (pauses - 1), LONGEST))

    def settle(self, used: Sequence[Attempt]) -> Position:
        """Ends these attempts and those that failed; the position behind them."""
        ends = [(attempt, "ok", "") for attempt in used]
        ends += self._failed
        self._failed = []
        self.attempts.end(attempt for attempt, _, _ in ends)
        self.counts.update(self.attempts.filtered)
        self.attempts.filtered.clear()
        self.counts.update(status for _, status, _ in ends)
        self._write(ends)
        return self.attempts.position(counts=dict(self.counts), logged=self.logged)

    def _reached(self) -> None:
        """Somebody answered."""
        self._unreached.clear()
        self._unreached_rows = 0

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

    def _borne(self) -> Iterator[tuple[Attempt, bytes]]:
        for attempt in self.attempts:
            assert attempt.row.image is not None
            yield attempt, attempt.row.image

    def _fetched(self) -> Iterator[tuple[Attempt, bytes]]:
        wanted = ((attempt, attempt.row.url or "") for attempt in self.attempts)
        results = fetch_all(wanted, self.fetch)
        try:
            for attempt, fetched in results:
                if fetched.data is None:
                    self.fail(attempt, fetched.status, fetched.detail)
                else:
                    yield attempt, fetched.data
        finally:
            results.close()

    def _check(self) -> None:
        """Refuses to run through a whole dataset for nothing."""
        if self._unreached_rows >= OFFLINE_ROWS and len(self._unreached) >= OFFLINE_HOSTS:
            raise Ended(
                f"not one of {len(self._unreached)} hosts could be reached, in "
                f"{self._unreached_rows} attempts in a row ({self._said()}): is there a network?"
            )
        epoch = self.attempts.epoch_attempts
        if epoch is not None and self._since_ok >= 4 * epoch + USELESS_ROWS:
            raise Ended(
                f"no image in {self._since_ok} attempts in a row, more than the {epoch} rows of "
                f"{self.source.name} that pass the filters ({self._said()})"
            )

    def _said(self) -> str:
        """The last failures by status, and one of them in full."""
        counts = Counter(status for _, status, _ in self._failed)
        attempt, _, detail = self._failed[-1]
        said = ", ".join(f"{status} {count}" for status, count in counts.most_common(4))
        return f"{said}; the last: {attempt.row.url or attempt.row.key}: {detail}"


def cut(log: Path, size: int) -> int:
    """Takes back what was logged behind a position; the bytes that are left."""
    if not log.is_file():
        return 0
    if log.stat().st_size > size:
        os.truncate(log, size)
    return log.stat().st_size


def pack_position(position: Position, revision: str | None) -> dict[str, Any]:
    """For a checkpoint."""
    return {**to_json(position), "revision": revision}


def unpack_position(kept: dict[str, Any], revision: str | None) -> Position:
    """What `pack_position` made. Raises unless it is of the same revision of the dataset."""
    if kept.get("revision") != revision:
        raise ValueError(
            f"resume: the run read revision {kept.get('revision')} of its dataset and this is "
            f"{revision}; give back the files it was begun with, or another --name"
        )
    fields = {field.name for field in dataclasses.fields(Position)}
    counts = {str(name): int(count) for name, count in kept.get("counts", {}).items()}
    plain = {name: value for name, value in kept.items() if name in fields - {"counts"}}
    return dataclasses.replace(from_json(Position, plain), counts=counts)
