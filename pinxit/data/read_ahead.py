"""Reads items from a generator in a thread, a few ahead of their use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Seconds between two calls of `interrupted` while the consumer waits."""
_END = object()


def read_ahead(
    items: Generator[T, None, None],
    *,
    ahead: int,
    name: str,
    waited: Callable[[float], None],
    interrupted: Callable[[], bool] = lambda: False,
    closed: threading.Event | None = None,
    patience: float | None = None,
) -> Generator[T, None, None]:
    """Yields the items of a generator, which runs in a thread called `name`.

    The thread stays at most `ahead` items ahead. `waited` receives the seconds that the consumer
    waited for each item. An exception in `items` is raised here after all earlier items. This
    generator ends early if `interrupted` returns True while no item is ready.

    Closing this generator sets `closed`, which `items` may check, makes the thread close `items`,
    and waits for the thread for at most `patience` seconds (None: until it ends).
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=ahead)
    closed = closed or threading.Event()

    def put(item: Any) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    break
            items.close()
            put(_END)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (item := _next(ready, waited, interrupted)) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        closed.set()
        thread.join(patience)


def _next(
    ready: queue.Queue[Any], waited: Callable[[float], None], interrupted: Callable[[], bool]
) -> Any:
    """Returns the next object that the thread put, or `_END` when interrupted."""
    start = time.perf_counter()
    try:
        while True:
            try:
                return ready.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                if interrupted():
                    return _END
    finally:
        waited(time.perf_counter() - start)
