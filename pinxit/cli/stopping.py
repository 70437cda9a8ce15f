"""Ends a command after SIGINT or SIGTERM with a line that says how it goes on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised in the main thread after SIGTERM."""


@contextmanager
def stoppable(goes_on: str) -> Iterator[None]:
    """Runs the block, which a signal ends at once, with exit code 128 plus the signal's number.

    `goes_on` says on stderr how to go on. The block must leave whole files behind at any moment.
    """
    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminated) if main else None
    try:
        yield
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        print(f"pinxit: stopped by {number.name}; {goes_on}", file=sys.stderr, flush=True)
        raise SystemExit(128 + number) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, previous)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated
