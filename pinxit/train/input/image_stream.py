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
"""Number of consecutive attempts without reaching a host after which the stream pauses."""
PAUSE = 2.0
"""Seconds of the first pause. Each following pause is twice as long, up to `LONGEST`."""
LONGEST = 32.0
OFFLINE_ROWS = 400
"""Number of consecutive attempts without reaching a host that mean that the network is down."""
USELESS_ROWS = 100
"""The stream ends after four epochs without an image and this many further failures."""


class Ended(UsageError):
    """The reason why a stream has no more images."""


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
    """The images of a source, for one consumer at a time."""

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
        """Opens the source at `start`.

        `log` gets a line for each attempted row. Existing lines after `start` are removed. `say`
        receives a warning for each unit that cannot be read.
        """
        start = start or Position()
        self.attempts = Attempts(
            source, filters, seed=seed, start=start, excluded=excluded, sleep=sleep, say=say
        )
        self.source = source
        self.fetch = fetch
        self.images = images
        self.counts: Counter[str] = Counter(start.counts)
        """Number of rows before the position by status, including filtered rows."""
        self.log = log
        self.logged = 0 if log is None else cut_log(log, start.logged)
        self._failed: list[tuple[Attempt, str, str]] = []
        self._since_ok = 0
        self._reachability = Reachability("dns", "connect", "timeout")
        self._sleep = sleep

    def row_images(self) -> Generator[RowImage, None, None]:
        """Yields images. Raises `Ended` when continuing is pointless."""
        with DecodePool(self.images) as pool:
            images = row_images(
                ((attempt, attempt.row) for attempt in self.attempts),
                has_images=self.source.has_images,
                fetch=partial(fetch_all, config=self.fetch),
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
            else:
                self._since_ok = 0
                self._reachability.note(attempt.row.url, "ok")
                yield RowImage(attempt, decoded.image)

    def fail(self, attempt: Attempt, status: str, detail: str) -> None:
        """Records an attempt without an image."""
        Outcome(attempt.row.key, status, detail)  # refuses unknown statuses
        self._failed.append((attempt, status, detail))
        self._since_ok += 1
        self._reachability.note(attempt.row.url, status)
        self._check()
        pauses, rest = divmod(self._reachability.attempts, PAUSE_ROWS)
        if pauses and not rest:
            self._sleep(min(PAUSE * 2 ** (pauses - 1), LONGEST))

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
        """Raises `Ended` if continuing is pointless: no network, or no image in several epochs."""
        unreached = self._reachability
        if unreached.is_offline(attempts=OFFLINE_ROWS):
            raise Ended(
                f"none of {len(unreached.hosts)} hosts could be reached in {unreached.attempts} "
                f"consecutive attempts ({self._failures()}). Is there a network connection?"
            )
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
