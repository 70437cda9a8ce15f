"""The objects of a run while it trains, and what happens beside its steps.

Each row of metrics, sample grid, evaluation and checkpoint of a run is made here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pinxit import extensions
from pinxit.config import to_json
from pinxit.devices.processes import alone, several
from pinxit.devices.transfer import fetch
from pinxit.train.build import Parts
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.display import Display
from pinxit.train.input.feed import Feed
from pinxit.train.loop import Hook
from pinxit.train.metric_window import Window
from pinxit.train.metric_writers import Writer, read_rows
from pinxit.train.optimizer import build_schedule
from pinxit.train.report.observer import Observer, names_of
from pinxit.train.run_folder import RunFolder
from pinxit.train.save_schedule import SaveSchedule, streak
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState
from pinxit.train.watch.run_health import RunWatch


class NotWritten(OSError):
    """Raised when the last checkpoint could not be written."""


@dataclass
class CurrentRun:
    """The objects of a running run."""

    config: TrainConfig
    parts: Parts
    folder: RunFolder
    display: Display
    checkpoints: Checkpoints
    writers: list[Writer]
    feed: Feed
    watch: RunWatch
    saves: SaveSchedule
    seconds: float = 0.0
    """Training time before this process, in seconds."""
    start_time: float = field(default_factory=time.perf_counter)

    def write(self, step: int, values: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def train_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.start_time

    def evaluated(self, step: int, row: dict[str, float]) -> None:
        """Writes a row of evaluators' values, unless that step has them already."""
        known = read_rows(self.folder.metrics)
        if row and not any(old["step"] == step and row.keys() <= old.keys() for old in known):
            self.write(step, row | self.watch.note(step, row, self.display.say))

    def on_row(self, step: int, row: dict[str, Any]) -> None:
        rate = build_schedule(self.config.optimizer, self.config.max_steps)
        row["learning_rate"] = float(np.asarray(rate(step - 1 - row.get("skipped", 0))))
        row |= self.feed.figures()
        row |= self.watch.note(step, row, self.display.say)
        self.write(step, row)
        self.display.on_row(step, row)

    def save(self, state: TrainState, window: Window, **more: Any) -> None:
        """Starts writing a checkpoint. Only warns if the previous one could not be written."""
        run = {
            "config": to_json(self.config),
            "seed": self.config.seed,
            "loader_position": self.feed.position(int(state.step)),
            "window": window.fetch(),
            "train_seconds": self.train_seconds(),
            "encoders": self.parts.encoders,
            "extensions": extensions.loaded(),
            **({"permanent": True} if self.saves.permanent(int(state.step)) else {}),
            **more,
        }
        if problem := self.written():
            self.display.say(f"warning: a checkpoint could not be written: {problem}")
        self.checkpoints.save(state, run, overwrite=bool(more))

    def save_now(self, state: TrainState, window: Window, **more: Any) -> None:
        """Writes a checkpoint and waits for it. On failure, all processes raise `NotWritten`."""
        self.save(state, window, **more)
        if problem := alone(self.written):
            step = int(state.step)
            raise NotWritten(f"the checkpoint of step {step} could not be written: {problem}")

    def save_last(self, state: TrainState, window: Window) -> str:
        """Writes the checkpoint at which training stops, and returns how the run goes on.

        Before the last step, nothing is saved during a streak of non-finite steps.
        """
        count = streak(state)
        if not count or int(state.step) >= self.config.max_steps:
            self.save_now(state, window)
            return "the same command resumes"
        self.written()
        steps = self.checkpoints.steps()
        origin = f"from step {steps[0]}" if steps else "from the start"
        return (
            f"not saved, because the last {count} steps were not finite; the same command resumes "
            f"{origin}"
        )

    def written(self) -> str:
        """Waits for the last checkpoint. Returns why it could not be written, or ""."""
        try:
            self.checkpoints.wait()
        except Exception as error:  # any failure of the writer: the caller reports it
            return str(error) or type(error).__name__
        return ""


def hooks_of(moving: CurrentRun, observer: Observer) -> tuple[Hook, ...]:
    """Returns the hooks of the loop. Saving comes last, so that a checkpoint never precedes the
    rows and grids of its step."""

    config = moving.config

    def sample(step: int, state: TrainState, window: Window) -> None:
        held = on_first(state)

        def draw() -> None:
            observer.sample(step, held)
            if not config.eval_interval and not moving.watch.text_works:
                moving.evaluated(step, observer.measure(held, ["caption_effect"]))

        alone(draw)

    def evaluate(step: int, state: TrainState, window: Window) -> None:
        held = on_first(state)
        names = names_of(mid_run=True)
        alone(lambda: moving.evaluated(step, observer.measure(held, names)))

    def save(step: int, state: TrainState, window: Window) -> None:
        if moving.saves.due(step, state):
            moving.save(state, window)

    return (
        Hook(config.sample_interval, sample),
        Hook(config.eval_interval, evaluate),
        Hook(1, save),
    )


def on_first(state: TrainState) -> TrainState:
    """Returns the state with parameters and averages that process 0 can use without the others."""
    if not several():
        return state
    return replace(state, params=fetch(state.params), ema=fetch(state.ema))
