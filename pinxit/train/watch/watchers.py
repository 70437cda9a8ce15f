"""The one wrapper of everything that only watches a run.

Sample grids, evaluations, rows of metrics, trackers and pages are not the training. If one of them
fails or hangs, the run counts the failure, warns once, and goes on. The number of failures is in
the rows of metrics, and each kind of failure is in results.json and in the report.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pinxit.devices.processes import Stopped
from pinxit.files import DiskFull
from pinxit.train.attended_work import NotEnded, attended
from pinxit.train.watch.out_of_memory import is_out_of_memory, memory_hint

T = TypeVar("T")
GRACE = 3.0
"""Seconds that a watcher has to end after a signal, before its thread is left behind."""


@dataclass
class Failures:
    """The failures of one watcher."""

    step: int
    """Step of the first one."""
    text: str
    """Text of the first one."""
    count: int = 0


class Watchers:
    """Runs watchers and counts their failures."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        stop: Callable[[], Any] = lambda: None,
        seconds: float | None = None,
        step: Callable[[], int] = lambda: 0,
    ) -> None:
        """Counts from zero. `stop` returns a true value once the run is to stop. A watcher that
        needs more than `seconds` is left behind. `step` returns the run's step."""
        self.failures: dict[str, Failures] = {}
        self._say, self._stop, self._seconds, self._step = say, stop, seconds, step
        self._hanging: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def attend(self, name: str, act: Callable[[], T]) -> T | None:
        """Runs `act` in a thread. Returns its result, or None if it failed, hung, or was given up
        because of a signal."""
        hanging = self._hanging.get(name)
        if hanging is not None and hanging.is_alive():
            self.failed(name, TimeoutError("an earlier one has still not finished"))
            return None
        try:
            return attended(act, name=name, stop=self._stop, seconds=self._seconds, grace=GRACE)
        except Stopped:
            self._say(f"{name}: not finished, because the run is to stop")
        except NotEnded as error:
            self._hanging[name] = error.thread
            self.failed(name, error)
        except Exception as error:  # whatever it is, the run goes on
            self.failed(name, error)
        return None

    def guard(self, name: str, act: Callable[[], T], default: T) -> T:
        """Runs `act`, which takes no time, here. Returns its result, or `default` if it failed."""
        try:
            return act()
        except Exception as error:  # whatever it is, the run goes on
            self.failed(name, error)
        return default

    def failed(self, name: str, error: BaseException) -> None:
        """Counts a failure, and warns if it is the first one of this name."""
        text = last_line(error)
        if is_out_of_memory(error):
            text = memory_hint(error)
        elif isinstance(error, DiskFull):
            text = error.fact
        with self._lock:
            first = name not in self.failures
            of_name = self.failures.setdefault(name, Failures(self._step(), text))
            of_name.count += 1
        if first:
            self._say(f"warning: {name} failed, and the run goes on without it: {text}")
            if os.environ.get("PINXIT_DEBUG", "0") not in ("", "0"):
                traceback.print_exception(error)

    def figures(self) -> dict[str, float]:
        """Returns the number of failures so far for a row of metrics, if there are any."""
        count = sum(failures.count for failures in self.failures.values())
        return {"watch_failures": count} if count else {}

    def results(self) -> list[dict[str, Any]]:
        """Returns a warning for each watcher that failed, in the form of a `Finding`."""
        return [
            {
                "kind": "watcher",
                "step": failures.step,
                "text": f"{name} failed {_times(failures.count)}, first at step {failures.step}: "
                f"{failures.text}",
                "advice": "",
            }
            for name, failures in self.failures.items()
        ]


def last_line(error: BaseException) -> str:
    """Returns the last line of an exception's traceback: its type and its text in one line."""
    return " ".join("".join(traceback.format_exception_only(error)).split())[:400]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
