"""Draws comparison grids through the engine, so that the pictures of other requests come between.

A few cells are in the engine's queue at a time. When all are drawn, the sheet is stored in the
gallery. It has the same bytes as that of `pinxit grid`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from typing import Any, Literal

from PIL import Image

from pinxit.comparison_grid.sheet import GridSheet, grid_bytes, grid_file_name, grid_json
from pinxit.config import UsageError
from pinxit.serve.engine.engine import Draining, DrawingEngine, QueueFull
from pinxit.serve.engine.jobs import DrawRequest, Job
from pinxit.serve.gallery.folder import Gallery
from pinxit.serve.gallery.grid_request import DrawnGrid, GridPlan

log = logging.getLogger(__name__)
AHEAD = 4
"""The number of cells that a grid has in the engine's queue."""
MOST_RUNNING = 4
"""The number of grids that are drawn at the same time."""
MOST_REMEMBERED = 20
"""The number of grids that are remembered after they have ended."""
KEPT = 60.0
"""Seconds for which the pictures of the cells are kept after the end, for pages that load them."""
WAIT = 0.1
"""Seconds between looks at a cell that is being drawn."""
GridState = Literal["drawing", "done", "failed", "cancelled"]


class TooManyGrids(QueueFull):
    """Raised while `MOST_RUNNING` grids are drawn."""


class GridJob:
    """A grid that is being drawn."""

    def __init__(self, plan: GridPlan, engine: DrawingEngine, gallery: Gallery) -> None:
        self.id = secrets.token_urlsafe(12)
        """The name of the job in addresses, which cannot be guessed."""
        self.plan = plan
        """The grid and its models."""
        self.created = time.time()
        """Seconds since 1970."""
        self.state: GridState = "drawing"
        """The state, which does not change after it is another one than drawing."""
        self.error = ""
        """The reason of a failure."""
        self.stored: str | None = None
        """The name of the sheet in the gallery."""
        self.finished: list[int] = []
        """The numbers of the cells that are drawn, in this order."""
        self.warnings: list[str] = []
        """Warnings of the engine, each once."""
        self._pictures: dict[int, Image.Image] = {}
        self._recipes: dict[int, dict[str, Any]] = {}
        self._engine, self._gallery = engine, gallery
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"grid-{self.id}", daemon=True)

    def start(self) -> None:
        """Begins to draw."""
        self._thread.start()

    def cancel(self) -> None:
        """Stops drawing within a step."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the end."""
        self._thread.join(timeout)

    def cell(self, number: int) -> Image.Image | None:
        """Returns the picture of a cell, or None if it is not drawn, or no longer kept."""
        return self._pictures.get(number)

    def _run(self) -> None:
        try:
            self._draw()
            if self._stop.is_set():
                self.state = "cancelled"
                return
            self.stored = self._store()
            self.state = "done"
        except (UsageError, QueueFull, Draining, OSError) as error:
            self.error = str(error)
            self.state = "failed"
        except Exception as error:
            log.exception("a comparison grid could not be drawn")
            self.error = f"an error in the server ({type(error).__name__}); its log says more"
            self.state = "failed"
        finally:
            forget = threading.Timer(KEPT, self._pictures.clear)
            forget.daemon = True
            forget.start()

    def _draw(self) -> None:
        """Draws the cells, with a few of them in the engine's queue."""
        requests = self.plan.requests()
        rest, jobs = deque(self.plan.order()), deque[tuple[int, Job]]()
        try:
            while (rest or jobs) and not self._stop.is_set():
                if rest and len(jobs) < AHEAD:
                    job = self._submitted(requests[rest[0]], wait=not jobs)
                    if job is not None:
                        jobs.append((rest.popleft(), job))
                        continue
                if jobs and has_ended(jobs[0][1], WAIT):
                    self._take(*jobs.popleft())
        finally:
            for _, job in jobs:
                job.cancel()

    def _submitted(self, request: DrawRequest, *, wait: bool) -> Job | None:
        """Returns the job of a cell, or None if the queue is full for now."""
        try:
            return self._engine.submit(request)
        except QueueFull as error:
            if wait:
                self._stop.wait(min(1.0, float(error.retry_after)))
            return None

    def _take(self, number: int, job: Job) -> None:
        """Keeps the picture of a cell. Raises `UsageError` if there is none."""
        picture = job.pictures[0]
        if picture is None:
            reason = f"cell {number + 1} was {'not drawn' if job.state == 'failed' else job.state}"
            raise UsageError(reason if job.error is None else f"{reason}: {job.error}")
        self.warnings += [text for text in job.warnings if text not in self.warnings]
        self._pictures[number], self._recipes[number] = picture.image, picture.recipe
        self.finished.append(number)

    def _store(self) -> str:
        """Stores the sheet in the gallery and returns its name."""
        cells = range(len(self.plan.grid))
        drawn = DrawnGrid(self.plan.grid, [self._recipes[i] for i in cells])
        sheet = GridSheet(drawn).draw([self._pictures[i] for i in cells])
        return self._gallery.add_file(grid_file_name(grid_json(drawn)), grid_bytes(drawn, sheet))


def has_ended(job: Job, seconds: float) -> bool:
    """Waits for a job for a time, and returns whether it has ended."""
    with contextlib.suppress(TimeoutError):
        job.wait(seconds)
    return job.is_ended


class GridDesk:
    """The grids that are drawn, and those that have ended lately."""

    def __init__(self, engine: DrawingEngine, gallery: Gallery) -> None:
        self._engine, self._gallery = engine, gallery
        self._jobs: OrderedDict[str, GridJob] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, plan: GridPlan) -> GridJob:
        """Begins to draw a grid. Raises `TooManyGrids`."""
        job = GridJob(plan, self._engine, self._gallery)
        with self._lock:
            if sum(each.state == "drawing" for each in self._jobs.values()) >= MOST_RUNNING:
                raise TooManyGrids(30)
            ended = [each.id for each in self._jobs.values() if each.state != "drawing"]
            for id in ended[: max(0, len(ended) - MOST_REMEMBERED + 1)]:
                del self._jobs[id]
            self._jobs[job.id] = job
        job.start()
        return job

    def jobs(self) -> list[GridJob]:
        """Returns all grids, the newest last."""
        with self._lock:
            return list(self._jobs.values())

    def job(self, id: str) -> GridJob:
        """Returns the grid of an id. Raises KeyError."""
        with self._lock:
            return self._jobs[id]

    def close(self) -> None:
        """Stops all grids."""
        for job in self.jobs():
            job.cancel()
        for job in self.jobs():
            job.join(5)
