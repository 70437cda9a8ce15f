"""Runs units in threads of one process, so that the next begins while stragglers of others end.

A unit whose URLs have all been requested waits for the slowest of them, up to a minute, with
nothing to do. So a function may allow several open units (`open_units`): it is called with
`drained`, which it calls once it needs no more of the unit's input. The process then gets another
unit. Each unit that is begun sends one message when it is drained, if it is, and one with its
result. All engines pass these messages on, and `Assignment` answers them with new units.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from pinxit.prepare.engines.base import UnitResult, attempt, open_units

Message = tuple[int, UnitResult | None]
"""The number of a unit, and its result, or None once it is drained."""


class UnitThreads:
    """The open units of one process."""

    def __init__(self, fn: Callable[..., Any], send: Callable[[Message], object]) -> None:
        """Takes a function, and `send`, which receives the messages in the threads of the units."""
        self._fn, self._send = fn, send
        self._threads: set[threading.Thread] = set()

    def begin(self, number: int, unit: Any) -> None:
        """Begins a unit. If the function allows one open unit only, it is done when this returns,
        otherwise it is done in a thread."""
        if open_units(self._fn) == 1:
            self._send((number, attempt(self._fn, unit)))
            return
        thread = threading.Thread(
            target=self._run, args=(number, unit), name=f"pinxit-unit-{number}", daemon=True
        )
        self._threads = {thread for thread in self._threads if thread.is_alive()} | {thread}
        thread.start()

    def _run(self, number: int, unit: Any) -> None:
        fn = partial(self._fn, drained=lambda: self._send((number, None)))
        self._send((number, attempt(fn, unit, stops=False)))

    def join(self) -> None:
        """Waits until all units have ended."""
        for thread in self._threads:
            thread.join()
