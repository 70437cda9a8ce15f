"""Hashes shards in a thread while their records are already being used.

The thread never holds up a step: it has the lowest priority, reads at most `RATE` bytes a second,
and the reading threads wait for it only while it notes a damaged shard. It ends with the process,
or when `BackgroundHashes.close` is called.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pinxit.data.prepared.shards import DamagedShard, ShardInfo, verify_shard

RATE = 32 * 10**6
"""The most bytes that are read in a second, on average. A terabyte takes nine hours."""
PATIENCE = 2.0
"""Seconds to wait for the thread when it is to end."""
LOWEST = 19
"""The lowest priority of a thread on Linux."""

Places = Mapping[str, tuple[Path, ShardInfo]]
"""The shards of a unit by folder: each path, and the expected properties."""


class BackgroundHashes:
    """A thread that hashes units. It starts with the first one."""

    def __init__(self, report: Callable[[int, str, str], None]) -> None:
        """Takes the function that receives the unit, the folder and the reason for each damaged
        shard. The thread calls it."""
        self._report = report
        self._todo: queue.SimpleQueue[tuple[int, Places]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._due = 0.0
        """When the bytes that were read so far fit the rate, by the monotonic clock."""
        self.checked = 0
        """The number of units that have been hashed."""

    def add(self, number: int, places: Places) -> None:
        """Adds the shards of a unit."""
        self._todo.put((number, places))
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._work, name="pinxit-hashes", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread. Units that were not hashed yet are not hashed."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def _work(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # not on this system
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        with contextlib.suppress(_Stopped):
            while not self._stop.is_set():
                with contextlib.suppress(queue.Empty):
                    self._check(*self._todo.get(timeout=0.5))

    def _check(self, number: int, places: Places) -> None:
        """Hashes the shards of a unit."""
        for folder, (path, info) in places.items():
            try:
                verify_shard(path, info, between=self._pause)
            except DamagedShard as error:
                self._report(number, folder, str(error))
                break
            except OSError:  # an error of this machine, which the readers report if they meet it
                break
        self.checked += 1

    def _pause(self, count: int) -> None:
        """Waits until the bytes that were read fit the rate."""
        now = time.monotonic()
        self._due = max(self._due, now) + count / RATE
        if self._stop.wait(self._due - now):
            raise _Stopped


class _Stopped(Exception):
    """Raised in the thread when it is to end."""
