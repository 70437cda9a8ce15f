"""Batches of a stream in a run of several processes, each of which makes its part of every batch.

::

    thread "pinxit-stream"   attempts -> fetch -> decode -> encode on the own devices -> rows
    thread "pinxit-order"    reports of all processes -> order           (process 0 only)
    the training loop        order -> this process's part of the next batch

See `pinxit.train.input.common_order` for the agreement. A batch that is in the order is in the
memory of every process, so no process waits for data inside a step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.devices.processes import publish, published, published_under
from pinxit.train.input.common_order import (
    MESSAGES,
    BatchOrder,
    BatchReport,
    Leader,
    unpack_order,
    unpack_report,
)
from pinxit.train.input.image_stream import Stream
from pinxit.train.input.streamed_loader import (
    PATIENCE,
    EncodedRow,
    RowEncoder,
    StreamedLoader,
    stacked,
)

POLL = 0.03
"""Seconds between two looks for reports, or for a new order while waiting for one."""
KEY = "pinxit/stream"
"""The key under which the processes publish reports and orders."""


class CommonLoader(StreamedLoader):
    """Yields this process's parts of the batches that all processes have."""

    def __init__(
        self,
        stream: Stream,
        encode: RowEncoder,
        *,
        batch_size: int,
        rows: Int[np.ndarray, " b"],
        chunk: int,
        process: int,
        processes: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Takes the numbers of this process's rows in a batch of `batch_size`, the number of this
        process, and that of all processes. `say` receives the messages of the other processes."""
        super().__init__(stream, encode, batch_size=batch_size, chunk=chunk)
        self.rows = rows
        self.process, self.processes = process, processes
        self.say = say
        self.leader: Leader | None = None
        self._changed = threading.Condition(threading.RLock())
        self._order = BatchOrder()
        self._pool: dict[str, list[EncodedRow]] = {}
        """Rows that are ready, by image size."""
        self._row_counts: dict[str, int] = {}
        """Number of rows made in all, by image size."""
        self._steps = 0
        self._reason: str | None = None
        self._messages: list[str] = []
        self._message_count = 0
        self._published = ""
        self._error: BaseException | None = None

    def tell(self, message: str) -> None:
        """Passes a message of this process on to the user, through process 0."""
        with self._changed:
            self._messages = [*self._messages, message][-MESSAGES:]
            self._message_count += 1
        self._report()

    def batches(self, start: int, stop: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields the parts of the batches of steps `start` to `stop - 1`, or fewer if the data of
        any process end, which sets `ended`.

        Can be called once. All processes must call it. Closing the generator ends the threads.
        """
        self._progress[start] = self.stream.settle(())
        threads = [threading.Thread(target=self._work, name="pinxit-stream", daemon=True)]
        if self.process == 0:
            self.leader = Leader(self.processes, stop - start, self.say)
            lead = (self.leader,)
            threads.append(
                threading.Thread(target=self._lead, args=lead, name="pinxit-order", daemon=True)
            )
        for thread in threads:
            thread.start()
        try:
            for step in range(start, stop):
                size = self._next_size(step - start)
                if size is None:
                    return
                yield self._part(size, step)
        finally:
            self._closed.set()
            with self._changed:
                self._changed.notify_all()
            for thread in threads:
                thread.join(PATIENCE)

    def figures(self) -> dict[str, int]:
        """Returns the sums of the processes' figures on process 0, and those of this process on the
        others."""
        if self.leader is None:
            return self.stream.figures()
        sums: dict[str, int] = {}
        for report in self.leader.reports.values():
            for name, number in report.figures.items():
                sums[name] = sums.get(name, 0) + number
        return sums

    def unreadable(self) -> dict[str, str]:
        """Returns the errors of the units that any process could not read, on process 0."""
        units = dict(self.stream.attempts.unreadable)
        for report in self.leader.reports.values() if self.leader is not None else ():
            units |= report.unreadable
        return units

    # --- the training loop --------------------------------------------------------------------

    def _next_size(self, number: int) -> str | None:
        """Waits until a batch is in the order, and returns its size, or None at the end."""
        began = time.perf_counter()
        try:
            while (size := self._order.size(number)) is None:
                if self._error is not None:
                    raise self._error
                if self._order.ended is not None:
                    self.ended = self._order.ended
                    return None
                if self._read_order():
                    continue
                if self.interrupted():
                    self._end("")  # all processes end after the same step
                time.sleep(POLL)
            return size
        finally:
            self._waited(time.perf_counter() - began)

    def _read_order(self) -> bool:
        """Reads the order. Returns whether it has changed."""
        text = published(f"{KEY}/order")
        order = self._order if text is None else unpack_order(text)
        if order == self._order:
            return False
        with self._changed:
            self._order = order
            self._changed.notify_all()
        return True

    def _part(self, size: str, step: int) -> dict[str, np.ndarray]:
        """Takes this process's rows of a batch."""
        count = len(self.rows)
        with self._changed:
            rows, self._pool[size] = self._pool[size][:count], self._pool[size][count:]
            self._steps += 1
            self._changed.notify_all()
        after = self.stream.settle([row.attempt for row in rows])
        self._progress = {step: self._progress[step], step + 1: after}
        return stacked(rows, step * self.batch_size + self.rows)

    # --- the threads --------------------------------------------------------------------------

    def _work(self) -> None:
        """Makes rows until closed."""
        try:
            for rows in self._encoded():
                if rows:
                    self._add(rows)
                self._report()
                self._await_room()
        except (OSError, UsageError) as error:
            if not self._closed.is_set():
                self._end(str(error))
        except BaseException as error:  # raised in the training loop
            self._error = error
        finally:
            with suppress(Exception):  # the error is known, or the run ends
                self.images.close()

    def _add(self, rows: list[EncodedRow]) -> None:
        """Adds rows of one size to those that are ready."""
        size = "x".join(map(str, rows[0].shape))
        with self._changed:
            self._pool.setdefault(size, []).extend(rows)
            self._row_counts[size] = self._row_counts.get(size, 0) + len(rows)

    def _await_room(self) -> None:
        """Waits while there are as many rows as the order allows."""
        with self._changed:
            while self._is_full() and not self._closed.is_set():
                self._report()
                self._changed.wait(1.0)

    def _is_full(self) -> bool:
        return sum(map(len, self._pool.values())) >= self._order.ahead * len(self.rows)

    def _end(self, reason: str) -> None:
        """Reports that this process has no more data, or that a signal arrived."""
        with self._changed:
            if self._reason is None:
                self._reason = reason
        self._report()

    def _report(self) -> None:
        """Publishes the state of this process, if it has changed."""
        with self._changed:
            counts = {size: rows // len(self.rows) for size, rows in self._row_counts.items()}
            report = BatchReport(
                batches={size: count for size, count in counts.items() if count},
                steps=self._steps,
                full_at=self._order.ahead if self._is_full() else 0,
                ended=self._reason,
                figures=self.stream.figures(),
                unreadable=dict(self.stream.attempts.unreadable),
                messages=tuple(self._messages),
                message_count=self._message_count,
            )
            if (text := report.packed()) != self._published:
                publish(f"{KEY}/report/{self.process}", text)
                self._published = text

    def _lead(self, leader: Leader) -> None:
        """Publishes an order whenever the reports ask for a new one, until the last one."""
        try:
            order: Any = None
            while not (self._closed.is_set() or leader.decided):
                texts = published_under(f"{KEY}/report")
                reports = {int(number): unpack_report(text) for number, text in texts.items()}
                new = leader.note(reports)
                if new != order:
                    publish(f"{KEY}/order", new.packed())
                    order = new
                time.sleep(POLL)
        except BaseException as error:  # raised in the training loop
            self._error = error
