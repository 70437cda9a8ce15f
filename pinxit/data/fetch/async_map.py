"""Maps an asynchronous function over iterables, for callers that are not asynchronous.

The event loop runs in its own thread (`LoopThread`), which several callers in threads of their own
may share. Items are read from an iterable in its caller's thread, when it asks for results, so that
an error of the iterable is raised there. At most `window` items of a caller are in progress. If the
callers are slow, results accumulate up to a number or a number of bytes, of all callers together;
then the worker is paused until the callers have caught up.
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


class Closed(RuntimeError):
    """Raised in the threads of callers whose loop thread was closed."""


class LoopThread(Generic[A, R]):
    """An event loop in a thread, whose worker all callers share."""

    def __init__(
        self,
        open_worker: Callable[[], AbstractAsyncContextManager[Worker[A, R]]],
        *,
        limits: tuple[int, int],
        weigh: Callable[[R], int],
        on_take: Callable[[R], object] = lambda result: None,
    ) -> None:
        """Starts the thread and opens the worker in it; raises what opening it raises.

        `limits` are the results, and their bytes as measured by `weigh`, that may wait for all
        callers together. `on_take` is called in the loop with each result that a caller received,
        and with those that no caller receives any more.
        """
        self._open_worker, self._weigh, self._on_take = open_worker, weigh, on_take
        self._limits = limits
        self._lock = threading.Lock()
        self._waiting = self._waiting_bytes = 0
        self._paused = False
        self._callers: set[_Caller[R]] = set()
        self._error: BaseException | None = None
        """The reason why the loop has ended."""
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="pinxit-async-map", daemon=True
        )
        self._thread.start()
        error = started.get()
        if error is not None:
            self._thread.join()
            raise error

    def map(
        self, items: Iterable[tuple[K, A]], *, window: int
    ) -> Generator[tuple[K, R], None, None]:
        """Yields (key, result) for each (key, argument), in the order in which they finish.

        Several threads may map at the same time. An error that the worker raises is raised by all
        maps that are open. Closing the generator cancels its own work and no other.
        """
        caller = self._enter()
        keys: dict[int, K] = {}
        source: Iterator[tuple[K, A]] = iter(items)
        numbers, exhausted = 0, False
        try:
            while True:
                submitted = 0
                while not exhausted and len(keys) < window:
                    if submitted >= AT_ONCE and caller.has_result:
                        break
                    submitted += 1
                    try:
                        key, argument = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    keys[numbers] = key
                    self._call(self._begin, caller, numbers, argument)
                    numbers += 1
                if not keys:
                    return
                number, result = self._take(caller)
                yield keys.pop(number), result
        finally:
            self._leave(caller)

    def run(self, function: Callable[[], object]) -> None:
        """Calls a function in the loop, before the items that are submitted later."""
        with contextlib.suppress(Closed):
            self._call(function)

    def close(self) -> None:
        """Cancels all work and ends the thread. Maps that are still open raise `Closed`."""
        with contextlib.suppress(Closed):
            self._call(self._stop.set)
        self._thread.join()

    # --- in the callers' threads --------------------------------------------------------------

    def _enter(self) -> _Caller[R]:
        caller = _Caller[R]()
        with self._lock:
            if self._error is None:
                self._callers.add(caller)
                return caller
        raise self._closed()

    def _leave(self, caller: _Caller[R]) -> None:
        """Cancels the work of a caller, and waits until none of it is under way."""
        with contextlib.suppress(Closed):
            self._call(self._cancel, caller)
            caller.over.wait()

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Calls a function in the loop; raises `Closed` if it has ended."""
        with self._lock:
            if self._error is None:
                self._loop.call_soon_threadsafe(function, *arguments)
                return
        raise self._closed()

    def _closed(self) -> Closed:
        closed = Closed("the loop thread was closed")
        closed.__cause__ = self._error
        return closed

    def _take(self, caller: _Caller[R]) -> tuple[int, R]:
        number, result = caller.results.get()
        if isinstance(result, BaseException):
            raise result
        with contextlib.suppress(Closed):  # the loop has ended by itself, with an error
            self._call(self._on_take, result)
            if self._forget(result):
                self._call(self._pause_or_resume)
        return number, result

    def _forget(self, result: R) -> bool:
        """Counts a result as taken, and returns whether the worker is to go on."""
        with self._lock:
            self._waiting -= 1
            self._waiting_bytes -= self._weigh(result)
            resume = self._paused and not self._full(0.5)
            if resume:
                self._paused = False
        return resume

    # --- in the loop's thread -----------------------------------------------------------------

    def _run(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        error: BaseException = Closed("the loop thread was closed")
        with asyncio.Runner() as runner:
            try:
                runner.run(self._serve(started))
            except BaseException as raised:  # handed to the callers, who raise it
                error = raised
            with self._lock:
                self._error = error
            started.put(error)
            self._fail(error)
            for caller in self._all():
                caller.over.set()

    async def _serve(self, started: queue.SimpleQueue[BaseException | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._open_worker() as self._worker:
            started.put(None)
            await self._stop.wait()
            tasks = [task for caller in self._all() for task in caller.tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, caller: _Caller[R], number: int, argument: A) -> None:
        if not self._stop.is_set():
            task = self._loop.create_task(self._work(caller, number, argument))
            caller.tasks.add(task)
            task.add_done_callback(caller.tasks.discard)

    async def _work(self, caller: _Caller[R], number: int, argument: A) -> None:
        try:
            result = await self._worker(argument)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handed to the callers, who raise it
            if not caller.failed:
                self._fail(error)
        else:
            self._deliver(caller, number, result)

    def _fail(self, error: BaseException) -> None:
        """Passes an error on to all callers."""
        for caller in self._all():
            caller.failed = True
            caller.results.put((-1, error))

    def _all(self) -> list[_Caller[R]]:
        with self._lock:
            return list(self._callers)

    def _cancel(self, caller: _Caller[R]) -> None:
        for task in caller.tasks:
            task.cancel()
        caller.ending = self._loop.create_task(self._end(caller))

    async def _end(self, caller: _Caller[R]) -> None:
        """Waits for the cancelled work of a caller, and drops the results that it did not take."""
        await asyncio.gather(*caller.tasks, return_exceptions=True)
        with self._lock:
            self._callers.discard(caller)
        with contextlib.suppress(queue.Empty):
            while True:
                _, result = caller.results.get_nowait()
                if not isinstance(result, BaseException):
                    self._on_take(result)
                    if self._forget(result):
                        self._pause_or_resume()
        caller.over.set()

    def _deliver(self, caller: _Caller[R], number: int, result: R) -> None:
        with self._lock:
            self._waiting += 1
            self._waiting_bytes += self._weigh(result)
            pause = not self._paused and self._full(1.0)
            if pause:
                self._paused = True
        caller.results.put((number, result))
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


class _Caller(Generic[R]):
    """The work and the results of one map."""

    def __init__(self) -> None:
        self.results: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
        self.tasks: set[asyncio.Task[None]] = set()
        self.failed = False
        """Whether an error was handed to the map."""
        self.ending: asyncio.Task[None] | None = None
        """Ends the work after the map was closed."""
        self.over = threading.Event()
        """Is set when no work of the map is under way any more."""

    @property
    def has_result(self) -> bool:
        """Whether a result waits to be taken."""
        return not self.results.empty()
