"""Writes rows of metrics in a thread, so that a dead disk or network never stops the run.

Each destination has its own thread and its own queue. A row that the disk has no room for stays in
the queue and is tried again. So that no row is lost if the process dies first, the rows that
metrics.jsonl does not have yet are part of every checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.plain_json import plain_values
from pinxit.progress import counted
from pinxit.train.attended_work import leave_behind
from pinxit.train.metric_writers.writer import Writer

RETRY_SECONDS = 5.0
"""Seconds after which a row that could not be written is tried again, if no new row comes first."""
SILENCE_SECONDS = 60.0
"""Seconds after which a writer that does not return counts as hanging."""
MOST = 10_000
"""Number of rows that wait for one writer. Beyond that, the oldest ones are dropped."""

FailedFn = Callable[[str, BaseException], None]


@dataclass(frozen=True)
class Item:
    """A row or a picture on its way to a writer."""

    step: int
    values: Mapping[str, Any]
    picture: Path | None = None


class BackgroundWriter:
    """Passes rows and pictures to one writer, in a thread."""

    def __init__(
        self, name: str, open_writer: Callable[[], Writer], failed: FailedFn, *, most: int = MOST
    ) -> None:
        """Starts the thread, which opens the writer. `failed` receives `name` and each
        exception."""
        self.name = name
        self.written = 0
        """Number of rows and pictures that were written."""
        self._open, self._failed, self._most = open_writer, failed, most
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._busy_since: float | None = None
        self._reported = False
        self._thread = threading.Thread(target=self._work, name=f"pinxit-{name}", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a row to the queue, as plain JSON values."""
        self._add(Item(step, plain_values(values)))

    def picture(self, step: int, path: Path) -> None:
        """Adds a sample grid to the queue."""
        self._add(Item(step, {}, path))

    def unwritten(self) -> list[dict[str, Any]]:
        """Returns the rows that are not written yet, as they would be stored."""
        with self._changed:
            items = list(self._items)
        return [{"step": item.step, **item.values} for item in items if item.picture is None]

    def flush(self, seconds: float) -> bool:
        """Waits for at most `seconds` until everything is written, and returns whether it is."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._items and (remaining := deadline - time.monotonic()) > 0:
                self._changed.notify_all()
                self._changed.wait(min(remaining, 0.5))
            return not self._items

    def close(self, seconds: float) -> None:
        """Writes what is in the queue and closes the writer, for at most `seconds`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        if self._thread.is_alive():
            leave_behind(self._thread)
        if count := len(self._items):
            problem = f"{counted(count, 'row')} not written by the end of the run"
            self._failed(self.name, TimeoutError(problem))

    def _add(self, item: Item) -> None:
        with self._changed:
            dropped = len(self._items) >= self._most
            if dropped:
                # the first item may be in the writer's hands
                del self._items[1]
            self._items.append(item)
            self._changed.notify_all()
            busy = self._busy_since
        if dropped:
            self._failed(self.name, OverflowError(f"more than {self._most} rows wait for it"))
        if busy is not None and time.monotonic() - busy > SILENCE_SECONDS and not self._reported:
            self._reported = True
            self._failed(self.name, TimeoutError(f"no answer for {SILENCE_SECONDS:g} seconds"))

    def _work(self) -> None:
        writer: Writer | None = None
        while (item := self._next()) is not None:
            try:
                writer = writer or self._open()
                if item.picture is None:
                    writer.write(item.step, item.values)
                else:
                    writer.picture(item.step, item.picture)
            except OSError as error:
                # no room, or no network: the same row is tried again
                self._failed(self.name, error)
                with self._changed:
                    self._busy_since = None
                    if self._closing:
                        self._changed.wait(0.5)
                    else:
                        self._changed.wait(RETRY_SECONDS)
                continue
            except Exception as error:  # a row that this writer cannot write
                self._failed(self.name, error)
            else:
                self.written += 1
            with self._changed:
                self._items.popleft()
                self._busy_since, self._reported = None, False
                self._changed.notify_all()
        if writer is not None:
            with suppress(Exception):  # everything is written, and nothing follows
                writer.close()

    def _next(self) -> Item | None:
        """Waits for an item, and returns it without removing it. Returns None at the end."""
        with self._changed:
            while not self._items:
                if self._closing:
                    return None
                self._changed.wait()
            self._busy_since = time.monotonic()
            return self._items[0]


class BackgroundWriters:
    """Holds all writers of a run. The first one writes metrics.jsonl."""

    def __init__(self, openers: Mapping[str, Callable[[], Writer]], failed: FailedFn) -> None:
        """Starts the threads. `openers` has one function for each destination, by its name in
        warnings."""
        self.writers = [BackgroundWriter(name, open_, failed) for name, open_ in openers.items()]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Passes a row to all writers."""
        for writer in self.writers:
            writer.write(step, values)

    def picture(self, step: int, path: Path) -> None:
        """Passes a sample grid to all writers."""
        for writer in self.writers:
            writer.picture(step, path)

    def unwritten(self) -> list[dict[str, Any]]:
        """Returns the rows that metrics.jsonl does not have yet."""
        return self.writers[0].unwritten() if self.writers else []

    def flush(self, seconds: float) -> bool:
        """Waits until metrics.jsonl has all rows, and returns whether it has."""
        return self.writers[0].flush(seconds) if self.writers else True

    def close(self, seconds: float) -> None:
        """Closes all writers within `seconds`."""
        deadline = time.monotonic() + seconds
        for writer in self.writers:
            writer.close(max(0.1, deadline - time.monotonic()))
