"""Work that a thread begins before its result is needed, such as compiling a program."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def begun(act: Callable[[], T], *, name: str) -> Future[T]:
    """Calls `act` in a thread of its own, and returns the future of its result.

    Python waits for the thread when the process ends, since a compilation cannot be interrupted.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"pinxit-{name}")
    future = pool.submit(act)
    pool.shutdown(wait=False)
    return future
