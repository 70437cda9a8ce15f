"""The loop: a batch, a step, and every so often something more.

The host hands steps to the device without waiting for their results (at most `IN_FLIGHT` ahead); it
waits when a row of the log or a hook is due. A signal only sets a flag: the step in progress ends,
the state is handed back, and the caller writes a checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import psutil

from pinxit.train.metric_window import Window
from pinxit.train.state import TrainState
from pinxit.train.step import StepFn

IN_FLIGHT = 2
"""Steps the host may be ahead of the device."""
WAITS = 0.1
"""Share of a row spent waiting for data from which on a step is timed by itself."""


@runtime_checkable
class Batches(Protocol):
    """The seam between data and loop; `Loader` is one."""

    batch_size: int
    wait_seconds: float
    """Time that `batches` has waited for data, in all."""

    def batches(self, start: int, stop: int) -> Generator[dict[str, Any], None, None]:
        """The batches of the steps `start` to `stop - 1`; fewer where the data end."""
        ...


class NotFinite(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class Interruption:
    """Makes the first SIGINT or SIGTERM a request to stop, the second a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """The signal's name, once there was one."""
        self.agree: Callable[[bool], bool] = bool
        """From whether this process should stop to whether all do, at this step."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def due(self) -> bool:
        """Whether to stop after this step. To be asked once a step."""
        return self.agree(self.requested is not None)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


@dataclass(frozen=True)
class Hook:
    """Something to do every `every` steps (0: never)."""

    every: int
    """Interval in steps."""
    call: Callable[[int, TrainState, Window], None]
    """Receives the step, the state after it, and the metrics not yet written."""


OnRow = Callable[[int, dict[str, Any]], None]
OnStep = Callable[[int], None]


class _Clock:
    """Seconds of training since the last row, without the hooks' and without those of compiling:
    the first step's, and that of the first batch of any other shape."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader
        self.known: set[frozenset[Any]] = set()
        self.compiles = False
        self.restart()
        self.steps = -1
        self.given = 0.0
        self.waits = False
        self.alone: float | None = None

    def restart(self) -> None:
        """Begins a new row."""
        self.steps, self.paused = 0, 0.0
        self.begun, self.waited = time.perf_counter(), self.loader.wait_seconds

    def begin(self, columns: dict[str, Any]) -> None:
        """A step is about to be given to the device; it compiles if its shapes are new."""
        shapes = frozenset((name, np.shape(array)) for name, array in columns.items())
        self.compiles = shapes not in self.known
        self.known.add(shapes)
        self.given = time.perf_counter()

    def tick(self, result: jax.Array) -> None:
        """Counts a step. One that compiles is waited for and left out.

        Where the row before waited for data, the first step of a row, which finds an idle device,
        is waited for and timed: what a step takes by itself.
        """
        if self.compiles:
            result.block_until_ready()
            if self.steps < 0:
                self.restart()
            else:
                self.paused += time.perf_counter() - self.given
            return
        if self.steps == 0 and self.waits:
            result.block_until_ready()
            self.alone = time.perf_counter() - self.given
        self.steps += 1

    def row(self) -> dict[str, float | None]:
        """Speed, share of time spent waiting for data, and memory."""
        seconds = max(time.perf_counter() - self.begun - self.paused, 1e-9)
        steps, waited = self.steps, self.loader.wait_seconds - self.waited
        share = min(1.0, waited / seconds)
        self.waits = share > WAITS
        row = {"step_seconds": self.alone} if self.alone is not None else {}
        self.alone = None
        return row | {
            "images_per_second": steps * self.loader.batch_size / seconds if steps else None,
            "seconds_per_step": seconds / steps if steps else None,
            "data_wait_share": share,
            "memory_gb": psutil.Process().memory_info().rss / 1e9,
        }


def train(
    step_fn: StepFn,
    state: TrainState,
    loader: Batches,
    *,
    frozen: Any,
    max_steps: int,
    log_interval: int,
    on_row: OnRow,
    on_step: OnStep = lambda step: None,
    hooks: Sequence[Hook] = (),
    place: Callable[[dict[str, Any]], dict[str, Any]] = jax.device_put,
    window: Window | None = None,
    interruption: Interruption | None = None,
    max_skipped: int = 20,
) -> tuple[TrainState, Window]:
    """The state after `max_steps`, or at an interruption, and the metrics not yet written.

    Training goes on from ``state.step``, which is also the position in the data. Raises `NotFinite`
    when more than `max_skipped` steps in a row were skipped. `state` is consumed.
    """
    window = window or Window()
    step = int(state.step)
    ahead: deque[jax.Array] = deque()
    clock = _Clock(loader)
    batches = loader.batches(step, max_steps)
    try:
        for columns in batches:
            clock.begin(columns)
            state, metrics = step_fn(state, frozen, place(columns))
            step += 1
            window.add(metrics)
            ahead.append(metrics["loss"])
            if len(ahead) > IN_FLIGHT:
                ahead.popleft().block_until_ready()
            clock.tick(metrics["loss"])
            on_step(step)
            if step % log_interval == 0 or step == max_steps:
                row = window.row()
                streak = row.pop("worst_streak", 0)
                row |= {"images": step * loader.batch_size} | clock.row()
                on_row(step, row)
                clock.restart()
                if streak > max_skipped:
                    raise NotFinite(_not_finite(step, streak, max_skipped))
            begun = time.perf_counter()
            for hook in hooks:
                if hook.every and step % hook.every == 0:
                    hook.call(step, state, window)
            clock.paused += time.perf_counter() - begun
            if interruption is not None and interruption.due():
                break
    finally:
        batches.close()
    return state, window


def _not_finite(step: int, streak: int, max_skipped: int) -> str:
    return (
        f"stopped at step {step}: loss or gradient was not finite in {streak} steps in a row "
        f"(max_skipped {max_skipped}); try a lower optimizer.learning_rate, a longer "
        "optimizer.warmup_steps, or use_amp 0"
    )
