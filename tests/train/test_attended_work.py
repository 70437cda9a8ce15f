"""Work in a thread: its result, its exceptions, signals and deadlines."""

from __future__ import annotations

import threading
import time

import pytest

from pinxit.devices.processes import Stopped
from pinxit.train.attended_work import NotEnded, attended, end_if_asked, left_behind


def test_results_and_exceptions_come_back():
    assert attended(lambda: 7, name="seven") == 7
    with pytest.raises(KeyError, match="three"):
        attended(lambda: {}["three"], name="missing")
    end_if_asked()  # the main thread is never asked


def test_a_signal_ends_work_that_looks_and_leaves_other_work_behind():
    looked = threading.Event()

    def looks() -> None:
        for _ in range(200):
            time.sleep(0.01)
            try:
                end_if_asked()
            except Stopped:
                looked.set()
                raise

    with pytest.raises(Stopped):
        attended(looks, name="looks", stop=lambda: "SIGTERM", grace=2.0)
    assert looked.is_set() and left_behind() == []
    released = threading.Event()
    started = time.monotonic()
    with pytest.raises(Stopped):
        attended(released.wait, name="hangs", stop=lambda: "SIGTERM", grace=0.1)
    assert time.monotonic() - started < 2 and left_behind() == ["pinxit-hangs"]
    released.set()
    time.sleep(0.2)
    assert left_behind() == []


def test_a_deadline_names_the_thread():
    released = threading.Event()
    with pytest.raises(NotEnded, match=r"not finished after 0\.2 seconds") as caught:
        attended(released.wait, name="late", seconds=0.2)
    assert caught.value.thread.is_alive()
    released.set()
