"""One run that listeners follow: its rows are read once, however many they are."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from pinxit.serve.server_events import server_event
from pinxit.train.report.metrics_tail import MetricsTail
from pinxit.train.report.run_rows import RunRows
from pinxit.train.report.run_samples import GridFacts, grids
from pinxit.train.report.run_state import RunState, results_of
from pinxit.train.report.run_view import (
    batch_size_of,
    max_steps_of,
    remaining_seconds,
    run_view,
)
from pinxit.train.run_folder import RunFolder

LOOK_SECONDS = 0.7
"""Seconds between two looks at the files of a run that has listeners."""
MOST_WAITING = 64
"""Number of events that a slow listener may have waiting, before it is told to begin again."""
MOST_ROWS = 2_000
"""Number of rows in one event."""

Event = tuple[str, dict[str, Any]]
"""The name and the data of an event."""


@dataclass(eq=False)
class FollowedRun:
    """The rows, grids and state of a run, and those who listen to them."""

    folder: RunFolder
    state: Callable[[RunFolder, dict[str, Any] | None], RunState]
    log: Callable[[], str]
    _generation: str = field(default_factory=lambda: secrets.token_hex(4))
    _rows: RunRows = field(default_factory=lambda: RunRows(0))
    _facts: GridFacts = field(default_factory=GridFacts)
    _last: dict[str, Any] = field(default_factory=dict)
    _listeners: set[asyncio.Queue[Event]] = field(default_factory=set)
    _task: asyncio.Task[None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tail = MetricsTail(self.folder.metrics)
        self._rows = RunRows(batch_size_of(self.folder))

    @property
    def position(self) -> str:
        """The number of rows that are known, of this generation of the file."""
        return f"{self._generation}:{len(self._rows.rows)}"

    def view(self) -> dict[str, Any]:
        """Returns the data of the run's page."""
        with self._lock:
            self._look()
            view = run_view(self.folder, rows=self._rows, describe=self._facts.all)
            view |= self.state(self.folder, self._newest()).to_json()
            return {**view, "position": self.position, "log": self.log()}

    def curves(self, start: int, end: int) -> dict[str, Any]:
        """Returns the curves between two steps, as exact as they are."""
        with self._lock:
            self._look()
            return self._rows.curves(start=start, end=end)

    def _newest(self) -> dict[str, Any] | None:
        return self._rows.rows[-1]["values"] if self._rows.rows else None

    def _look(self) -> list[Event]:
        """Reads what is new, and returns it as events."""
        if not self._rows.batch_size:  # the run had no settings when it was first read
            self._rows.batch_size = batch_size_of(self.folder)
        again, new = self._tail.read()
        if again:
            self._generation = secrets.token_hex(4)
            self._rows = RunRows(batch_size_of(self.folder))
        start = len(self._rows.rows)
        added = self._rows.add(new)
        if again:
            return [("reset", {})]
        return self._as_events(start, added)

    def _as_events(self, start: int, rows: list[dict[str, Any]]) -> list[Event]:
        parts = range(0, len(rows), MOST_ROWS)
        return [
            (
                "rows",
                {
                    "generation": self._generation,
                    "start": start + i,
                    "rows": rows[i : i + MOST_ROWS],
                },
            )
            for i in parts
        ]

    def refresh(self) -> list[Event]:
        """Returns what has changed since the last call: rows, grids and the state."""
        with self._lock:
            events = self._look()
            for name, data in (("samples", self._samples()), ("state", self._state())):
                if self._last.get(name) != data:
                    self._last[name] = data
                    events.append((name, data))
            return events

    def _samples(self) -> dict[str, Any]:
        step = (results_of(self.folder) or {}).get("step")
        return {"samples": self._facts.all(grids(self.folder, last_step=step))}

    def _state(self) -> dict[str, Any]:
        state = self.state(self.folder, self._newest())
        max_steps = max_steps_of(self.folder)
        running = state.state == "running"
        return {
            **state.to_json(),
            "max_steps": max_steps,
            "seconds_left": remaining_seconds(self._rows, max_steps) if running else None,
            "has_results": results_of(self.folder) is not None,
            # before its first row, a run only has its log to show
            **({} if self._rows.rows and running else {"log": self.log()}),
        }

    def _after(self, position: str) -> list[Event]:
        """Returns the rows after a position that a listener knows, the grids and the state."""
        with self._lock:
            self._look()
            generation, _, count = position.partition(":")
            same = generation == self._generation and count.isdecimal()
            if not same or int(count) > len(self._rows.rows):
                return [("reset", {})]
            rows = self._as_events(int(count), self._rows.rows[int(count) :])
            return [*rows, ("samples", self._samples()), ("state", self._state())]

    async def events(self, position: str) -> AsyncIterator[bytes]:
        """Yields what happens after a position as server-sent events, until the listener leaves."""
        queue: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            for event in await asyncio.to_thread(self._after, position):
                yield self._encoded(event)
            while True:
                yield self._encoded(await queue.get())
        finally:
            self._listeners.discard(queue)

    def _encoded(self, event: Event) -> bytes:
        """Returns an event in the form of a stream, with the position after it as its id."""
        name, data = event
        position = None
        if name == "rows":
            position = f"{data['generation']}:{data['start'] + len(data['rows'])}"
        return server_event(name, data, id=position)

    async def _follow(self) -> None:
        """Looks at the files while there are listeners."""
        while self._listeners:
            for event in await asyncio.to_thread(self.refresh):
                for queue in tuple(self._listeners):
                    _give(queue, event)
            await asyncio.sleep(LOOK_SECONDS)


def _give(queue: asyncio.Queue[Event], event: Event) -> None:
    """Adds an event to a listener's queue. One that is full is emptied, and its listener begins
    again."""
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        event = ("reset", {})
    queue.put_nowait(event)
