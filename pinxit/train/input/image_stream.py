"""From attempts to images: filter, fetch, decode, and an outcome for every row that was tried.

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
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pinxit.config import UsageError, from_json, to_json
from pinxit.data.fetch.fetcher import FetchConfig, fetch_all
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.outcome import Outcome
from pinxit.data.reachability import Reachability
from pinxit.data.row import Source
from pinxit.data.row_images import row_images
from pinxit.train.input.attempt_order import Attempt, Attempts, Position

PAUSE_ROWS = 64
"""The stream pauses each time that this many attempts in a row have not reached their host."""
PAUSE = 2.0
"""Seconds of the first pause; the next ones are twice as long, up to `LONGEST`."""
LONGEST = 32.0
OFFLINE_ROWS = 400
"""If this many attempts in a row reach no host, the network is taken to be down."""
USELESS_ROWS = 100
"""The stream ends after four epochs without an image, and this many failures more."""


class Ended(UsageError):
    """Why a stream gives no more images."""


@dataclass(frozen=True, eq=False)
class RowImage:
    """A row's decoded image, and the attempt that got it."""

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
        """Opens the source at `start`. `log` gets a line for each row that was tried; lines behind
        `start` are cut off. `say` receives a warning for each unit that cannot be read."""
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
        self.logged = 0 if log is None else cut_log(log, start.logged)
        self._failed: list[tuple[Attempt, str, str]] = []
        self._since_ok = 0
        self._reachability = Reachability("dns", "connect", "timeout")
        self._sleep = sleep

    def row_images(self) -> Generator[RowImage, None, None]:
        """Yields images until it raises `Ended`, when there is no use in continuing."""
        with DecodePool(self.images) as pool:
            images = row_images(
                ((attempt, attempt.row) for attempt in self.attempts),
                bears_images=self.source.bears_images,
                fetch=partial(fetch_all, config=self.fetch),
                decode=pool.map,
                failed=self.fail,
            )
            with closing(images):
                yield from self._found(images)

    def _found(self, images: Iterable[tuple[Attempt, Decoded]]) -> Iterator[RowImage]:
        """Yields the images that can be used, and ends the attempts of the others."""
        for attempt, decoded in images:
            if attempt.row.key in self.attempts.excluded:
                self.attempts.end([attempt])  # under way when it was held out
            elif decoded.image is None:
                self.fail(attempt, decoded.status, decoded.detail)
            else:
                self._since_ok = 0
                self._reachability.note(attempt.row.url, "ok")
                yield RowImage(attempt, decoded.image)

    def fail(self, attempt: Attempt, status: str, detail: str) -> None:
        """Records an attempt that gave no image."""
        Outcome(attempt.row.key, status, detail)  # refuses words that are none
        self._failed.append((attempt, status, detail))
        self._since_ok += 1
        self._reachability.note(attempt.row.url, status)
        self._check()
        pauses, rest = divmod(self._reachability.attempts, PAUSE_ROWS)
        if pauses and not rest:
            self._sleep(min(PAUSE * 2 ** (pauses - 1), LONGEST))

    def settle(self, used: Sequence[Attempt]) -> Position:
        """Ends these attempts and those that failed, and returns the position behind them."""
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
        """Raises `Ended` rather than run through a whole dataset for nothing."""
        unreached = self._reachability
        if unreached.is_offline(attempts=OFFLINE_ROWS):
            raise Ended(
                f"not one of {len(unreached.hosts)} hosts could be reached, in "
                f"{unreached.attempts} attempts in a row ({self._failures()}): is there a network?"
            )
        epoch = self.attempts.epoch_attempts
        if epoch is not None and self._since_ok >= 4 * epoch + USELESS_ROWS:
            raise Ended(
                f"no image in {self._since_ok} attempts in a row, more than the {epoch} rows of "
                f"{self.source.name} that pass the filters ({self._failures()})"
            )

    def _failures(self) -> str:
        """Returns the last failures by status, and one of them in full, for a message."""
        counts = Counter(status for _, status, _ in self._failed)
        attempt, _, detail = self._failed[-1]
        statuses = ", ".join(f"{status} {count}" for status, count in counts.most_common(4))
        return f"{statuses}; the last: {attempt.row.url or attempt.row.key}: {detail}"


def cut_log(log: Path, size: int) -> int:
    """Cuts off what was logged behind a position, and returns the bytes that are left."""
    if not log.is_file():
        return 0
    if log.stat().st_size > size:
        os.truncate(log, size)
    return log.stat().st_size


def pack_position(position: Position, revision: str | None) -> dict[str, Any]:
    """Returns a position as JSON for a checkpoint."""
    return {**to_json(position), "revision": revision}


def unpack_position(packed: dict[str, Any], revision: str | None) -> Position:
    """Returns the position that `pack_position` packed. Raises unless it is of the same revision of
    the dataset."""
    if packed.get("revision") != revision:
        raise UsageError(
            f"resume: the run read revision {packed.get('revision')} of its dataset and this is "
            f"{revision}; give back the files it was begun with, or another --name"
        )
    fields = {field.name for field in dataclasses.fields(Position)}
    if missing := sorted(fields - packed.keys()):
        raise UsageError("resume", missing, problem="missing in the checkpoint's position")
    counts = {str(name): int(count) for name, count in packed.get("counts", {}).items()}
    plain = {name: value for name, value in packed.items() if name in fields - {"counts"}}
    return dataclasses.replace(from_json(Position, plain), counts=counts)
