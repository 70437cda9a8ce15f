"""Several loaders in threads, which share a store of texts as processes do."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pinxit.data.row import Row
from pinxit.train.input import common_loader
from pinxit.train.input.attempt_order import Attempt, OpenPortion
from pinxit.train.input.common_loader import CommonLoader
from pinxit.train.input.image_stream import RowImage, Stream
from pinxit.train.input.outage import Ended
from pinxit.train.input.portions import Portion, StreamProgress

WIDE, HIGH = (8, 16, 3), (16, 8, 3)
BATCH = 8


class ToyStream(Stream):
    """Images of these shapes, for ever; `before` is called before each."""

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], before: Callable[[int], None]
    ) -> None:
        self.shapes, self.before = shapes, before
        self.attempts = SimpleNamespace(unreadable={})  # type: ignore[assignment]
        self.outage = SimpleNamespace(stopping=None)  # type: ignore[assignment]
        self.used = 0
        self.closed = False

    def row_images(self) -> Generator[RowImage, None, None]:
        portion = OpenPortion(Portion(0))
        try:
            for number in itertools.count():
                self.before(number)
                attempt = Attempt(Row(str(number), None, "caption", None, None), number, portion)
                shape = self.shapes[number % len(self.shapes)]
                yield RowImage(attempt, np.zeros(shape, np.uint8))
        finally:
            self.closed = True

    def settle(self, used: Sequence[Attempt]) -> StreamProgress:
        self.used += len(used)
        return StreamProgress(begun_count=1, counts={"ok": self.used})

    def figures(self) -> dict[str, int]:
        return {"tried": self.used, "ok": self.used, "read": 2 * self.used, "dropped": 1}


@dataclass
class Together:
    """Loaders that run in threads, and what each has yielded."""

    streams: list[ToyStream]
    steps: int
    rows: list[np.ndarray] | None = None
    pace: Callable[[int, int], None] = lambda process, step: None
    batches: list[list[dict[str, Any]]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.streams)
        rows = self.rows or np.split(np.arange(BATCH), count)
        self.loaders = [
            CommonLoader(
                stream,
                lambda images: [{"images": image.image} for image in images],
                batch_size=BATCH,
                rows=rows[process],
                chunk=2,
                process=process,
                processes=count,
                say=self.said.append,
            )
            for process, stream in enumerate(self.streams)
        ]
        self.batches = [[] for _ in self.streams]

    def run(self, seconds: float = 60) -> None:
        threads = [threading.Thread(target=self._take, args=(p,)) for p in range(len(self.loaders))]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), "a process hangs"

    def _take(self, process: int) -> None:
        try:
            loader = self.loaders[process]
            for step, batch in enumerate(loader.batches(0, self.steps)):
                self.batches[process].append(batch)
                assert loader.progress(step).counts["ok"] == step * len(loader.rows)
                assert loader.progress(step + 1).counts["ok"] == (step + 1) * len(loader.rows)
                self.pace(process, step)
        except BaseException as error:
            self.errors.append(error)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The texts that processes share."""
    texts = dict[str, str]()

    def under(folder: str) -> dict[str, str]:
        items = list(texts.items())
        return {k.rpartition("/")[2]: v for k, v in items if k.startswith(f"{folder}/")}

    monkeypatch.setattr(common_loader, "publish", texts.__setitem__)
    monkeypatch.setattr(common_loader, "published", texts.get)
    monkeypatch.setattr(common_loader, "published_under", under)
    monkeypatch.setattr(common_loader, "POLL", 0.005)
    return texts


def never(number: int) -> None:
    """Lets every image come at once."""


def test_each_process_yields_its_part_of_every_batch():
    run = Together([ToyStream([WIDE], never) for _ in range(4)], steps=5)
    run.run()
    assert not run.errors and [len(batches) for batches in run.batches] == [5] * 4
    for step, parts in enumerate(zip(*run.batches, strict=True)):
        index = np.concatenate([part["index"] for part in parts])
        assert index.tolist() == [*range(step * BATCH, (step + 1) * BATCH)]
        assert all(part["images"].shape == (2, *WIDE) for part in parts)
    assert all(stream.used == 10 and stream.closed for stream in run.streams)
    figures = run.loaders[0].figures()
    assert figures["read"] == 2 * figures["ok"] and figures["ok"] > run.streams[0].used


def test_processes_may_have_parts_of_different_lengths():
    rows = [np.array([0, 1, 2, 5, 6, 7]), np.array([3, 4])]
    run = Together([ToyStream([WIDE], never) for _ in range(2)], steps=4, rows=rows)
    run.run()
    assert not run.errors
    assert [len(batches[3]["index"]) for batches in run.batches] == [6, 2]
    assert run.batches[1][3]["index"].tolist() == [27, 28]


def test_all_processes_take_the_same_sizes():
    shapes = ([WIDE, WIDE, HIGH], [HIGH, WIDE], [WIDE, HIGH, HIGH, HIGH], [HIGH, HIGH, WIDE])
    run = Together([ToyStream(each * 2, never) for each in shapes], steps=30)
    run.run()
    assert not run.errors
    sizes = [[batch["images"].shape for batch in batches] for batches in run.batches]
    assert len(sizes[0]) == 30 and all(each == sizes[0] for each in sizes)
    assert set(sizes[0]) == {(2, *WIDE), (2, *HIGH)}


def test_processes_without_a_common_size_end_with_the_reason():
    run = Together([ToyStream([shape], never) for shape in (WIDE, HIGH)], steps=30)
    run.run()
    assert not run.errors and run.batches == [[], []]
    for loader in run.loaders:
        assert "no batch of the same image size among 64 each (process 0: 8x16x3;" in loader.ended


@pytest.mark.parametrize("process", [0, 1, 2])
def test_if_the_data_of_one_process_end_all_end_after_the_same_step(process: int):
    def end(number: int) -> None:
        if number == 21:
            raise Ended("the network is gone")

    hooks = [never] * 3
    hooks[process] = end
    rows = [np.arange(0, 4), np.arange(4, 6), np.arange(6, 8)]
    run = Together([ToyStream([WIDE], before) for before in hooks], steps=99, rows=rows)
    run.run()
    assert not run.errors
    assert {loader.ended for loader in run.loaders} == {f"process {process}: the network is gone"}
    counts = {len(batches) for batches in run.batches}
    # of what it had made, some may wait for the others, and is fetched again
    most = 20 // len(rows[process])
    (count,) = counts
    assert most - common_loader_ahead() - 1 <= count <= most


@pytest.mark.parametrize("process", [0, 1])
def test_a_signal_ends_all_while_one_waits_for_its_data(process: int):
    """The process that gets the signal waits for the other one, whose network is away."""
    gone = threading.Event()

    def away(number: int) -> None:
        if number >= 20 and not gone.wait(30):
            raise AssertionError("not stopped")
        if gone.is_set():
            raise Ended("closed")

    hooks = [never, never]
    hooks[1 - process] = away
    run = Together([ToyStream([WIDE], before) for before in hooks], steps=99)
    at = time.monotonic()
    run.loaders[process].interrupted = lambda: time.monotonic() > at + 0.5
    stream = run.streams[1 - process]
    run.run_in = threading.Thread(target=run.run)  # type: ignore[attr-defined]
    run.run_in.start()
    while not all(loader._order.ended == "" for loader in run.loaders):
        assert time.monotonic() < at + 30, "not stopped"
        time.sleep(0.01)
    gone.set()  # the outage ends once the loader is closed
    run.run_in.join()
    assert not run.errors and [loader.ended for loader in run.loaders] == ["", ""]
    assert [len(batches) for batches in run.batches] == [5, 5] and stream.used == 20


def test_an_error_in_the_code_is_raised_by_its_process():
    def wrong(number: int) -> None:
        if number == 9:
            raise ZeroDivisionError

    run = Together([ToyStream([WIDE], never), ToyStream([WIDE], wrong)], steps=50)
    ends = time.monotonic() + 2
    # its death ends the other one, which only a signal does here
    run.loaders[0].interrupted = lambda: time.monotonic() > ends
    run.run()
    assert [type(error) for error in run.errors] == [ZeroDivisionError]


def test_a_slow_process_holds_back_the_others_and_is_heard():
    made = [0, 0]

    def fast(number: int) -> None:
        made[0] = number

    def slow(number: int) -> None:
        made[1] = number
        if number == 8:
            run.loaders[1].tell("the network is away")
        time.sleep(0.01)
        assert made[0] <= number + 4 * (common_loader_ahead() + 2)

    run = Together([ToyStream([WIDE], fast), ToyStream([WIDE], slow)], steps=12)
    run.run()
    assert not run.errors and run.said == ["process 1: the network is away"]
    assert run.loaders[0].wait_seconds > 0


def common_loader_ahead() -> int:
    return common_loader.BatchOrder().ahead
