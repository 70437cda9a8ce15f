"""The bridge from an event loop to an ordinary loop: nothing lost, nothing left behind."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pinxit.data.fetch.async_map import Closed, LoopThread


class Doubler:
    """Doubles numbers, the odd ones slowly; pauses as asked."""

    def __init__(self) -> None:
        self.running = self.peak = self.begun = self.ended = 0
        self.open = None

    async def __aenter__(self) -> "Doubler":
        self.open = asyncio.Event()
        self.open.set()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.closed = True

    async def __call__(self, number: int) -> int:
        await self.open.wait()
        self.begun += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(0.003 * (number % 3))
            if number == 666:
                raise RuntimeError("broken")
            return 2 * number
        finally:
            self.running -= 1
            self.ended += 1

    def pause(self) -> None:
        self.open.clear()

    def resume(self) -> None:
        self.open.set()


def run(items, worker=None, *, window=8, ready=100, ready_bytes=10**9, **more):
    worker = worker or Doubler()
    thread = shared(worker, ready=ready, ready_bytes=ready_bytes, **more)
    try:
        yield from thread.map(items, window=window)
    finally:
        thread.close()


def shared(worker, *, ready=100, ready_bytes=10**9, **more) -> LoopThread:
    limits = (ready, ready_bytes)
    return LoopThread(lambda: worker, limits=limits, weigh=lambda result: 1, **more)


def numbers(count: int, taken: list | None = None) -> Iterator[tuple[str, int]]:
    for i in range(count):
        if taken is not None:
            taken.append(i)
        yield f"key {i}", i


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "pinxit-async-map"]


def test_every_item_once_with_its_key():
    found = dict(run(numbers(100)))
    assert found == {f"key {i}": 2 * i for i in range(100)}
    assert threads() == []
    assert list(run(numbers(0))) == []


def test_results_come_as_they_finish():
    results = [result for _, result in run(numbers(100))]
    assert results != sorted(results)


def test_the_worker_s_thread_hears_what_was_taken():
    heard, seen = [], []

    def taken(result: int) -> None:
        assert threading.current_thread().name == "pinxit-async-map"
        heard.append(result)

    results = run(numbers(50), on_take=taken)
    for _, result in results:
        assert set(heard) <= {*seen, result}  # nothing before it is taken
        seen.append(result)
        if len(seen) == 40:
            break
    for _ in range(2000):
        if len(heard) == 40:
            break
        threading.Event().wait(0.01)
    assert sorted(heard) == sorted(seen)
    results.close()


def test_the_window_bounds_what_is_under_way():
    worker, taken = Doubler(), []
    results = run(numbers(1000, taken), worker, window=5)
    for count in range(1, 50):
        next(results)
        assert len(taken) <= count + 5
    assert worker.peak <= 5
    results.close()
    assert worker.ended == worker.begun and worker.closed and threads() == []


@pytest.mark.parametrize(("ready", "ready_bytes"), [(10, 10**9), (10**9, 10)])
def test_results_that_nobody_takes_stop_the_work(ready, ready_bytes):
    worker = Doubler()
    items = [(0, 0), *((i, 1) for i in range(1, 400))]
    results = run(iter(items), worker, window=400, ready=ready, ready_bytes=ready_bytes)
    for _ in range(30):
        next(results)
    paused = threading.Event()
    for _ in range(2000):
        if not worker.open.is_set():
            break
        paused.wait(0.01)
    assert not worker.open.is_set()
    assert len(list(results)) == 370 and worker.open.is_set()


def test_the_window_fills_although_results_wait():
    thread = shared(Doubler())
    results = thread.map(((i, 0) for i in range(10**6)), window=60)
    for _ in range(200):
        next(results)
        while not results.gi_frame.f_locals["caller"].has_result:
            pass
    assert len(results.gi_frame.f_locals["keys"]) > 50
    thread.close()
    results.close()


def test_errors_arise_with_the_caller():
    with pytest.raises(RuntimeError, match="broken"):
        list(run(iter([(0, 1), (1, 666), (2, 2)])))

    def failing():
        yield 0, 1
        raise OSError("unreadable source")

    with pytest.raises(OSError, match="unreadable source"):
        list(run(failing()))

    class Unopenable(Doubler):
        async def __aenter__(self):
            raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        list(run(numbers(3), Unopenable()))
    assert threads() == []


def test_dropping_the_generator_ends_the_thread():
    results = run(numbers(1000))
    next(results)
    del results
    assert threads() == []


def test_a_second_map_runs_beside_the_first():
    first, second = run(numbers(50)), run(numbers(50))
    both = [(next(first), next(second)) for _ in range(50)]
    assert len(both) == 50 and len(threads()) <= 2
    first.close()
    second.close()
    assert threads() == []


# --- several callers --------------------------------------------------------------------------


def test_callers_in_threads_get_their_own_results():
    thread, found = shared(Doubler()), {}

    def call(first: int) -> None:
        items = ((i, i) for i in range(first, first + 100))
        found[first] = dict(thread.map(items, window=8))

    callers = [threading.Thread(target=call, args=(1000 * n,)) for n in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    thread.close()
    assert found == {
        1000 * n: {i: 2 * i for i in range(1000 * n, 1000 * n + 100)} for n in range(5)
    }
    assert threads() == []


def test_closing_one_caller_cancels_its_own_work_only():
    worker = Doubler()
    released = []
    thread = shared(worker, on_take=released.append)
    one, other = (thread.map(((i, i) for i in range(200)), window=50) for _ in range(2))
    next(one), next(other)
    taken = 2
    one.close()
    assert len(released) + worker.running >= taken
    taken += len(list(other))
    assert taken == 201
    assert (thread._waiting, thread._waiting_bytes, thread._callers) == (0, 0, set())
    thread.close()
    assert len(released) >= taken, "the results that were dropped are released too"
    assert worker.ended == worker.begun


class Together(Doubler):
    """Answers nobody before 50 have asked, however slowly the caller hands them in."""

    async def __call__(self, number: int) -> int:
        answer = await super().__call__(number)
        while self.begun < 50:
            await asyncio.sleep(0.001)
        return answer


def test_results_that_one_caller_does_not_take_stop_the_work_of_all():
    worker = Together()
    thread = shared(worker, ready=10)
    idle = thread.map(((i, 0) for i in range(50)), window=50)
    next(idle)
    for _ in range(2000):
        if not worker.open.is_set():
            break
        threading.Event().wait(0.01)
    assert not worker.open.is_set()
    busy = thread.map(numbers(20), window=5)
    ended = []
    waiting = threading.Thread(target=lambda: ended.extend(busy))
    waiting.start()
    idle.close()  # what it did not take no longer counts
    waiting.join(60)
    assert len(ended) == 20 and worker.open.is_set()
    thread.close()


def test_an_error_of_the_worker_reaches_every_caller_and_no_later_one():
    thread = shared(Doubler())
    waiting = thread.map(((i, 2) for i in range(10**6)), window=4)
    next(waiting)
    with pytest.raises(RuntimeError, match="broken"):
        list(thread.map([(0, 666)], window=1))
    with pytest.raises(RuntimeError, match="broken"):
        list(waiting)
    assert dict(thread.map(numbers(3), window=1)) == {f"key {i}": 2 * i for i in range(3)}
    thread.close()


def test_closing_the_thread_wakes_its_callers():
    worker, ends = Doubler(), []
    thread = shared(worker)

    def call() -> None:
        with pytest.raises(Closed):
            list(thread.map(((i, 1) for i in range(10**9)), window=5))
        ends.append(True)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    while worker.begun < 20:
        threading.Event().wait(0.01)
    thread.close()
    for caller in callers:
        caller.join(60)
    assert ends == [True] * 3 and threads() == []
    with pytest.raises(Closed):
        list(thread.map(numbers(1), window=1))
