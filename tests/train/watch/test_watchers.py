"""The wrapper of watchers: failures are counted and said once, and never end the run."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from pinxit.config import UsageError
from pinxit.files import disk_full
from pinxit.train.watch.watchers import Watchers


def broken() -> int:
    raise ValueError("the judge\nis away")


def test_failures_are_counted_and_said_once():
    lines: list[str] = []
    watchers = Watchers(lines.append, step=lambda: 40)
    assert watchers.attend("the sample grid", lambda: 3) == 3 and watchers.figures() == {}
    assert [watchers.attend("the sample grid", broken) for _ in range(3)] == [None] * 3
    assert watchers.guard("the display", broken, 8) == 8
    assert lines == [
        "warning: the sample grid failed, and the run goes on without it: ValueError: the judge "
        "is away",
        "warning: the display failed, and the run goes on without it: ValueError: the judge is "
        "away",
    ]
    assert watchers.figures() == {"watch_failures": 4}
    first, _ = watchers.results()
    assert (first["kind"], first["step"]) == ("watcher", 40)
    assert first["text"].startswith("the sample grid failed 3 times, first at step 40: ValueError")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError("host"), "out of memory while sampling or evaluating: try smaller --eval"),
        (UsageError("images", 3, valid="10"), "images"),
        (disk_full(Path("/tmp/x"), OSError(errno.ENOSPC, "No space left")), "No space left"),
    ],
)
def test_whatever_it_is_the_run_goes_on(error: Exception, text: str):
    def fails() -> None:
        raise error

    lines: list[str] = []
    assert Watchers(lines.append).attend("the evaluation", fails) is None
    assert text in lines[0] and "run the same command" not in lines[0]


def test_one_that_hangs_is_not_waited_for_twice():
    lines: list[str] = []
    watchers, released = Watchers(lines.append, seconds=0.2), threading.Event()
    assert watchers.attend("the sample grid", released.wait) is None
    assert watchers.attend("the sample grid", lambda: 1) is None, "the first one still runs"
    assert watchers.figures() == {"watch_failures": 2} and len(lines) == 1
    released.set()


def test_a_signal_is_no_failure():
    lines: list[str] = []
    watchers = Watchers(lines.append, stop=lambda: "SIGTERM")
    released = threading.Event()
    threading.Timer(0.5, released.set).start()
    assert watchers.attend("the sample grid", lambda: released.wait() and None) is None
    assert watchers.results() == []


def test_a_second_signal_ends_the_run():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Watchers(print).attend("the sample grid", interrupted)
