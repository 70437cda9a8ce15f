"""An asynchronous function mapped over an iterable, for callers that are not asynchronous.

The event loop runs in a thread of its own. Items are taken from the iterable in the caller's
thread, when it asks for results, so that an error of the iterable arises where it belongs; at most
`window` items are then between the two ends. Results that nobody takes stop the work: above a
number, or a number of bytes, the worker is paused until the caller has caught up.
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
"""So many items are taken from the iterable, which may be slow, while a result waits; the window
fills all the same, since each result that is handed out makes room for one alone."""


class Worker(Protocol[A_contra, R_co]):
    """What does the work."""

    async def __call__(self, argument: A_contra, /) -> R_co: ...

    def pause(self) -> None:
        """Begin nothing new."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...


def async_map(
    items: Iterable[tuple[K, A]],
    open_worker: Callable[[], AbstractAsyncContextManager[Worker[A, R]]],
    *,
    window: int,
    ready: int,
    ready_bytes: int,
    weigh: Callable[[R], int],
    taken: Callable[[R], object] = lambda result: None,
) -> Generator[tuple[K, R], None, None]:
    """(key, result) for each (key, argument), as they finish.

    `ready` results, or `ready_bytes` of them by `weigh`, may wait for the caller; `taken` is called
    in the event loop with each that waits no more. Whatever the worker or the iterable raises is
    raised here. Closing the generator cancels what is under way.
    """
    thread = _LoopThread(open_worker, limits=(ready, ready_bytes), weigh=weigh, taken=taken)
    keys: dict[int, K] = {}
    source: Iterator[tuple[K, A]] = iter(items)
    numbers, exhausted = 0, False
    try:
        while True:
            begun = 0
            while not exhausted and len(keys) < window:
                if begun >= AT_ONCE and thread.has_result:
                    break
                begun += 1
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
    """The thread with the event loop, and the results on their way out of it."""

    def __init__(
        self,
        open_worker: Callable[[], AbstractAsyncContextManager[Worker[A, R]]],
        *,
        limits: tuple[int, int],
        weigh: Callable[[R], int],
        taken: Callable[[R], object],
    ) -> None:
        self._open_worker, self._weigh, self._taken = open_worker, weigh, taken
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
            self._loop.call_soon_threadsafe(self._taken, result)
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
