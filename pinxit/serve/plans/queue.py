"""Computes plans one after the other, in a thread that starts compilers as processes.

A plan that is cancelled ends its compiler at once. Finished plans are kept for a while.
"""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pinxit.config import UsageError
from pinxit.plan.compile_cache import CompilerFailed, OnProgress
from pinxit.plan.vendor_compilers import CompilerMissing
from pinxit.serve.plans.settings import PlanRequest

WAITING = 16
"""The maximum number of plans that wait."""
FINISHED = 50
"""The maximum number of finished plans that are kept."""
LIMIT = 3_600.0
"""The longest time of one plan, in seconds."""
Compute = Callable[[PlanRequest, OnProgress], dict[str, Any]]
"""Computes a plan, and describes it as plain values."""
ACTIVE = ("waiting", "computing")
"""The states of a plan that is not finished."""


class QueueIsFull(RuntimeError):
    """Too many plans are waiting."""


class _Cancelled(Exception):
    """Ends a computation from within."""


@dataclass
class PlanJob:
    """A plan that was asked for."""

    request: PlanRequest
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = "waiting"
    """One of waiting, computing, done, failed and cancelled."""
    what: str = ""
    """The program that is being compiled."""
    seconds: float = 0.0
    """The time that the current compilation has taken."""
    programs: int = 0
    """The number of programs that have been begun."""
    started: float | None = None
    """When the computation began, as `time.monotonic` gives it."""
    took: float | None = None
    """The seconds of the whole computation once it has ended."""
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    is_cancelled: bool = False

    def to_json(self, *, position: int = 0) -> dict[str, Any]:
        """Returns the job as plain values."""
        total = self.took
        if total is None and self.started is not None:
            total = time.monotonic() - self.started
        return {
            "id": self.id,
            "state": self.state,
            "position": position,
            "recipe": self.request.recipe,
            "target": self.request.target,
            "settings": dict(self.request.settings),
            "policies": list(self.request.policies),
            "price": self.request.price,
            "progress": {
                "what": self.what,
                "seconds": round(self.seconds, 1),
                "programs": self.programs,
                "total_seconds": round(total or 0.0, 1),
            },
            "result": self.result,
            "error": self.error,
        }


class PlanQueue:
    """Computes one plan at a time."""

    def __init__(self, compute: Compute) -> None:
        """Takes the function that computes. The thread starts with the first plan."""
        self._compute = compute
        self._jobs: OrderedDict[str, PlanJob] = OrderedDict()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, request: PlanRequest) -> PlanJob:
        """Adds a plan, unless the same one is waiting or being computed. Raises `QueueIsFull`."""
        with self._changed:
            active = [job for job in self._jobs.values() if job.state in ACTIVE]
            for job in active:
                if job.request == request and not job.is_cancelled:
                    return job
            if len(active) > WAITING:
                raise QueueIsFull("too many plans are waiting")
            job = PlanJob(request)
            self._jobs[job.id] = job
            self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="plans", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job

    def described(self, id: str) -> dict[str, Any]:
        """Returns a job as plain values. Raises KeyError if it does not exist."""
        with self._changed:
            job = self._jobs[id]
            return job.to_json(position=self._position(job))

    def all_described(self) -> list[dict[str, Any]]:
        """Returns all jobs as plain values, without their results, the oldest first."""
        with self._changed:
            jobs = self._jobs.values()
            return [{**job.to_json(position=self._position(job)), "result": None} for job in jobs]

    def cancel(self, id: str) -> None:
        """Cancels a job that is not finished. Raises KeyError if it does not exist."""
        with self._changed:
            job = self._jobs[id]
            job.is_cancelled = True
            if job.state == "waiting":
                job.state = "cancelled"

    def close(self) -> None:
        """Cancels everything, and waits until the compiler has ended."""
        with self._changed:
            self._is_closed = True
            for job in self._jobs.values():
                job.is_cancelled = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(10)

    def _position(self, job: PlanJob) -> int:
        """Returns how many plans are computed before this one."""
        active = [other for other in self._jobs.values() if other.state in ACTIVE]
        return active.index(job) if job in active else 0

    def _forget(self) -> None:
        """Drops the oldest finished jobs beyond `FINISHED`."""
        finished = [id for id, job in self._jobs.items() if job.state not in ACTIVE]
        for id in finished[: max(0, len(finished) - FINISHED)]:
            del self._jobs[id]

    def _work(self) -> None:
        """Computes the waiting jobs until the queue is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._next() is not None)
                job = self._next()
                if self._is_closed or job is None:
                    return
                job.state, job.started = "computing", time.monotonic()
            state, result, error = self._run(job)
            with self._changed:
                job.took = time.monotonic() - (job.started or 0.0)
                job.state, job.result, job.error = state, result, error

    def _next(self) -> PlanJob | None:
        return next((job for job in self._jobs.values() if job.state == "waiting"), None)

    def _run(self, job: PlanJob) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None]:
        """Computes a job, and returns its state, its result and its error."""

        def on_progress(what: str, seconds: float) -> None:
            with self._changed:
                if seconds < job.seconds or what != job.what or not job.programs:
                    job.programs += 1
                job.what, job.seconds = what, seconds
                late = job.started is not None and time.monotonic() - job.started > LIMIT
            if job.is_cancelled:
                raise _Cancelled
            if late:
                raise UsageError(f"the plan took longer than {LIMIT / 60:.0f} minutes")

        try:
            return "done", self._compute(job.request, on_progress), None
        except _Cancelled:
            return "cancelled", None, None
        except Exception as error:
            return "failed", None, described_error(error)


def described_error(error: Exception) -> dict[str, Any]:
    """Returns the message of an error, and the command that helps if there is one."""
    if isinstance(error, CompilerMissing):
        text = str(error).partition("; run: ")[0]
        return {"message": text, "command": error.command, "param": "target"}
    if isinstance(error, UsageError | CompilerFailed):
        return {"message": str(error)[:2_000], "command": None, "param": None}
    traceback.print_exception(error)
    kind = type(error).__name__
    return {"message": f"unexpected {kind}: {error}"[:2_000], "command": None, "param": None}
