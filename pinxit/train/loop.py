"""The training loop: takes a batch, runs a step, and calls hooks at intervals.

The host starts steps on the device without waiting for their results, at most `IN_FLIGHT` ahead. It
waits only when a row of metrics or a hook is due. On a CPU, the step runs in the thread of this
loop (`pinxit.callers_thread`). A signal only sets a flag: the current step completes, the loop
returns the state, and the caller writes a checkpoint.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import psutil

from pinxit.devices.processes import Stopped
from pinxit.train.interruption import Interruption
from pinxit.train.metric_window import Window
from pinxit.train.state import TrainState
from pinxit.train.step import StepFn

IN_FLIGHT = 2
"""Number of steps that the host may be ahead of the device."""
WAITS = 0.1
"""If more than this fraction of a row was spent waiting for data, one step of the next is timed."""


@runtime_checkable
class Batches(Protocol):
    """The interface between data and loop. `Loader` implements it."""

    batch_size: int
    wait_seconds: float
    """Total time that `batches` has waited for data, in seconds."""

    def batches(self, start: int, stop: int) -> Generator[dict[str, Any], None, None]:
        """Yields the batches of the steps `start` to `stop - 1`, or fewer if the data end."""
        ...


class NotFinite(RuntimeError):
    """Raised when the loss or gradient was not finite in too many consecutive steps."""


@dataclass(frozen=True)
class Hook:
    """A function to call every `every` steps (0: never)."""

    every: int
    """Interval in steps."""
    call: Callable[[int, TrainState, Window], None]
    """The function. It receives the step, the state after it, and the metrics not yet written."""


OnRow = Callable[[int, dict[str, Any]], None]
OnStep = Callable[[int], None]


class _Clock:
    """Measures the seconds of training since the last row.

    Hooks do not count, nor do steps that compile: the first one, and the first one with a batch of
    another shape."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader
        self.known: set[frozenset[Any]] = set()
        self.compiles = False
        self.restart()
        self.steps = -1
        self.started = 0.0
        self.waits = False
        self.alone: float | None = None

    def restart(self) -> None:
        """Starts measuring a new row."""
        self.steps, self.paused = 0, 0.0
        self.row_start, self.waited = time.perf_counter(), self.loader.wait_seconds

    def begin(self, columns: dict[str, Any]) -> None:
        """Notes that a step starts on the device. It compiles if its shapes are new."""
        shapes = frozenset((name, np.shape(array)) for name, array in columns.items())
        self.compiles = shapes not in self.known
        self.known.add(shapes)
        self.started = time.perf_counter()

    def tick(self, result: jax.Array) -> None:
        """Counts a step, unless it compiles: then waits for it and excludes its time.

        If the previous row waited for data, the first step of this row finds an idle device. It is
        waited for and timed, which gives the time of a step alone.
        """
        if self.compiles:
            result.block_until_ready()
            if self.steps < 0:
                self.restart()
            else:
                self.paused += time.perf_counter() - self.started
            return
        if self.steps == 0 and self.waits:
            result.block_until_ready()
            self.alone = time.perf_counter() - self.started
        self.steps += 1

    def row(self) -> dict[str, float | None]:
        """Returns the speed, the fraction of time spent waiting for data, and the memory used."""
        seconds = max(time.perf_counter() - self.row_start - self.paused, 1e-9)
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
    """Trains until `max_steps` or an interruption. Returns the state and the metrics not yet
    written.

    Training continues from ``state.step``, which is also the position in the data. Raises
    `NotFinite` after more than `max_skipped` consecutive skipped steps. `state` is consumed.
    """
    window = window or Window()
    step = int(state.step)
    ahead: deque[jax.Array] = deque()
    clock = _Clock(loader)
    batches = loader.batches(step, max_steps)
    try:
        for columns in batches:
            clock.begin(columns)
            try:
                state, metrics = step_fn(state, frozen, place(columns))
            except Stopped:  # a signal arrived while the step was compiled: it was not taken
                break
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
            before = time.perf_counter()
            for hook in hooks:
                if hook.every and step % hook.every == 0:
                    hook.call(step, state, window)
            clock.paused += time.perf_counter() - before
            if interruption is not None and interruption.due():
                break
    finally:
        batches.close()
    return state, window


def _not_finite(step: int, streak: int, max_skipped: int) -> str:
    return (
        f"stopped at step {step}: loss or gradient was not finite in {streak} consecutive steps "
        f"(max_skipped is {max_skipped})"
    )
