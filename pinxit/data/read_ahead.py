"""Items that a thread takes from an iterator, a few ahead of their use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""The pause between two looks at `interrupted` while the consumer waits."""
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

    At most `ahead` items wait to be used; `waited` receives the seconds spent waiting for each. An
    exception of the generator is raised here, behind the items before it. If `interrupted` returns
    True while there is nothing to yield, this generator ends. Closing it sets `closed`, which
    `items` may look at, closes `items` in the thread, and waits for the thread, at most `patience`
    seconds.
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
    """Returns what the thread has put next, or `_END` when interrupted."""
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
