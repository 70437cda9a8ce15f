"""The signals that end a run: the first one asks it to stop, the second one ends it at once.

A signal only sets a flag. The current step completes, the loop returns the state, and the caller
writes a checkpoint. With several processes, a signal to one of them reaches the others: during
steps through a sum over the devices (`Agreement`), at other times through the key-value store.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from pinxit.devices.processes import asked_to_stop, pass_on

LOOK_SECONDS = 0.5
"""Seconds between two questions to the store whether another process has received a signal."""


class Interruption:
    """Turns the first SIGINT or SIGTERM into a request to stop, the second into
    KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that this process has received, or None before any."""
        self.elsewhere: str | None = None
        """Name of the signal that another process has received, as far as it is known here."""
        self.agree: Callable[[bool], bool] = bool
        """Maps this process's wish to stop to the common decision of all processes at this step."""
        self.ending: Callable[[], bool] = lambda: False
        """Returns whether this process has no more data, so that all of them are to stop."""
        self.agreed = False
        """Whether all processes know that they stop after this step."""
        self._previous: dict[int, Any] = {}
        self._looked = 0.0
        self._passed_on = False

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def due(self) -> bool:
        """Returns whether to stop after this step. Must be called once per step."""
        return self.agreed or self.agree(self.requested is not None or self.ending())

    def heard(self) -> str | None:
        """Returns the name of the signal that this process or another one has received, if any.
        Passes this process's signal on to the others."""
        if self.requested is not None:
            if not self._passed_on:
                self._passed_on = True
                pass_on(self.requested)
            return self.requested
        if self.elsewhere is None and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self.elsewhere = asked_to_stop()
        return self.elsewhere

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
