"""Items that a thread takes ahead of their use."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from pinxit.data.read_ahead import read_ahead


def numbers(seen: list[Any], *, stop: int = 100) -> Generator[int, None, None]:
    try:
        for number in range(stop):
            seen.append(number)
            yield number
    finally:
        seen.append(threading.current_thread().name)


def ahead(items: Generator[int, None, None], **more: Any) -> Generator[int, None, None]:
    return read_ahead(items, **{"ahead": 2, "name": "reader", "waited": lambda _: None} | more)


def test_all_items_come_in_their_order_and_waiting_is_counted():
    waits: list[float] = []
    assert list(ahead(numbers([], stop=5), waited=waits.append)) == [0, 1, 2, 3, 4]
    assert len(waits) == 6 and min(waits) >= 0  # the end is waited for, too


def test_few_items_are_read_ahead_and_closing_closes_them_in_the_thread():
    seen: list[Any] = []
    items = ahead(numbers(seen))
    assert next(items) == 0
    time.sleep(0.3)
    assert len(seen) <= 1 + 2 + 1  # used, waiting, and in the thread's hands
    items.close()
    assert seen[-1] == "reader"
    assert not any(thread.name == "reader" for thread in threading.enumerate())


def test_an_error_comes_behind_the_items_before_it():
    def broken() -> Generator[int, None, None]:
        yield 1
        raise KeyError("gone")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="gone"):
        next(items)


def test_waiting_can_be_interrupted_and_a_slow_thread_is_not_waited_for():
    closed, released = threading.Event(), threading.Event()

    def slow() -> Generator[int, None, None]:
        yield 1
        released.wait(60)

    items = ahead(slow(), interrupted=lambda: True, closed=closed, patience=0.01)
    begun = time.monotonic()
    assert list(items) == [1]
    assert closed.is_set() and time.monotonic() - begun < 30
    released.set()
