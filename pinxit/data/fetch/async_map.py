"""Maps an asynchronous function over an iterable, for callers that are not asynchronous.

The event loop runs in its own thread. Items are read from the iterable in the caller's thread, when
it asks for results, so that an error of the iterable is raised there. At most `window` items are in
progress. If the caller is slow, results accumulate up to a number or a number of bytes; then the
worker is paused until the caller has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

K = TypeVar("K")
A = TypeVar("A")
R = TypeVar("R")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


AT_ONCE = 4
"""Items read from the iterable, which may be slow, while a result is ready. The window fills
nevertheless, since each result that is handed out makes room for only one item."""


class Worker(Protocol[A_contra, R_co]):
    """Performs the work, one argument at a time."""

    async def __call__(self, argument: A_contra, /) -> R_co: ...

    def pause(self) -> None:
        """Stops new work."""
        ...

    def resume(self) -> None:
        """Allows new work again."""
        ...


def async_map(
    items: Iterable[tuple[K, A]],
    open_worker: Callable[[], AbstractAsyncContextManager[Worker[A, R]]],
    *,
    window: int,
    ready: int,
    ready_bytes: int,
    weigh: Callable[[R], int],
    on_take: Callable[[R], object] = lambda result: None,
) -> Generator[tuple[K, R], None, None]:
    """Yields (key, result) for each (key, argument), in the order in which they finish.

    At most `ready` results, or `ready_bytes` as measured by `weigh`, wait for the caller; `on_take`
    is called in the event loop with each result that the caller receives. Errors of the worker and
    of the iterable are raised here. Closing the generator cancels work under way.
    """
    thread = _LoopThread(open_worker, limits=(ready, ready_bytes), weigh=weigh, on_take=on_take)
    keys: dict[int, K] = {}
    source: Iterator[tuple[K, A]] = iter(items)
    numbers, exhausted = 0, False
    try:
        while True:
            submitted = 0
            while not exhausted and len(keys) < window:
                if submitted >= AT_ONCE and thread.has_result:
                    break
                submitted += 1
                try:
                    key, argument = next(source)
                except StopIteration:
                    exhausted = True
                    break
                keys[numbers] = key
                thread.submit(numbers, argument)
                numbers += 1
            if not keys:
                return
            number, result = thread.take()
            yield keys.pop(number), result
    finally:
        thread.stop()


class _LoopThread(Generic[A, R]):
    """Runs the event loop in a thread and passes its results to the caller's."""

    def __init__(
        self,
        open_worker: Callable[[], AbstractAsyncContextManager[Worker[A, R]]],
        *,
        limits: tuple[int, int],
        weigh: Callable[[R], int],
        on_take: Callable[[R], object],
    ) -> None:
        self._open_worker, self._weigh, self._on_take = open_worker, weigh, on_take
        self._limits = limits
        self._results: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = self._waiting_bytes = 0
        self._paused = False
        self._tasks: set[asyncio.Task[None]] = set()
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="pinxit-async-map", daemon=True
        )
        self._thread.start()
        error = started.get()
        if error is not None:
            self._thread.join()
            raise error

    @property
    def has_result(self) -> bool:
        return not self._results.empty()

    def submit(self, number: int, argument: A) -> None:
        self._loop.call_soon_threadsafe(self._begin, number, argument)

    def take(self) -> tuple[int, R]:
        number, result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        with self._lock:
            self._waiting -= 1
            self._waiting_bytes -= self._weigh(result)
            resume = self._paused and not self._full(0.5)
            if resume:
                self._paused = False
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself, with an error
            self._loop.call_soon_threadsafe(self._on_take, result)
            if resume:
                self._loop.call_soon_threadsafe(self._pause_or_resume)
        return number, result

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself, with an error
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # --- in the thread ------------------------------------------------------------------------

    def _run(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._serve(started))
            except BaseException as error:  # handed to the caller, who raises it
                started.put(error)
                self._results.put((-1, error))

    async def _serve(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._open_worker() as self._worker:
            started.put(None)
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, number: int, argument: A) -> None:
        if not self._stop.is_set():
            task = self._loop.create_task(self._work(number, argument))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, number: int, argument: A) -> None:
        result: R | BaseException
        try:
            result = await self._worker(argument)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handed to the caller, who raises it
            result = error
        self._deliver(number, result)

    def _deliver(self, number: int, result: Any) -> None:
        with self._lock:
            if not isinstance(result, BaseException):
                self._waiting += 1
                self._waiting_bytes += self._weigh(result)
            pause = not self._paused and self._full(1.0)
            if pause:
                self._paused = True
        self._results.put((number, result))
        if pause:
            self._pause_or_resume()

    def _full(self, share: float) -> bool:
        number, size = self._limits
        return self._waiting >= share * number or self._waiting_bytes >= share * size

    def _pause_or_resume(self) -> None:
        with self._lock:
            paused = self._paused
        if paused:
            self._worker.pause()
        else:
            self._worker.resume()
