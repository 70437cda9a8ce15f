"""The objects of a run while it trains: its rows of metrics, its checkpoints, and its hooks.

A checkpoint comes before the sample grid and the evaluation of its step. If the run ends between
them, the resumed run makes up for what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pinxit import extensions
from pinxit.config import to_json
from pinxit.devices.processes import alone, several
from pinxit.devices.transfer import fetch
from pinxit.files import DiskFull
from pinxit.train.background_writer import BackgroundWriters
from pinxit.train.build import Parts
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.display import Display
from pinxit.train.early_work import begun
from pinxit.train.input.feed import Feed
from pinxit.train.interruption import Interruption
from pinxit.train.loop import Hook
from pinxit.train.metric_window import Window
from pinxit.train.optimizer import build_schedule
from pinxit.train.report.observer import Observer
from pinxit.train.report.page import RunPage
from pinxit.train.resume_policy import SettingChange, changes_to_json
from pinxit.train.run_folder import RunFolder, as_stored, run_records
from pinxit.train.save_schedule import SaveSchedule, streak
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState
from pinxit.train.step_watch import StepFigures
from pinxit.train.watch.rescue import rescue_message, step_to_return_to
from pinxit.train.watch.run_health import MetricsRow, RunWatch
from pinxit.train.watch.watchers import Watchers, last_line

LAST_SECONDS = 300.0
"""Seconds for which the last checkpoint is tried again, if the disk is full for example."""
STOPPED_SECONDS = 8.0
"""The same after a signal, when the machine may soon be gone."""


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
    writers: BackgroundWriters
    feed: Feed
    watch: RunWatch
    saves: SaveSchedule
    watchers: Watchers
    figures: StepFigures
    interruption: Interruption
    step: int = 0
    """Number of steps taken before this process."""
    changes: tuple[SettingChange, ...] = ()
    """The changes that the run has made to its settings."""
    seconds: float = 0.0
    """Training time before this process, in seconds."""
    before: Sequence[MetricsRow] = ()
    """The rows of metrics from before this process."""
    start_time: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Notes which values the evaluators have measured at which step."""
        self.page = RunPage(self.folder)
        self._rate = build_schedule(self.config.optimizer, self.config.max_steps, self.changes)
        begun(lambda: self._rate(0), name="rate")  # compiled beside the step, not after it
        self._measured: dict[int, set[str]] = {}
        for row in self.before:
            if names := {name for name in row if "/" in name}:
                self._measured.setdefault(row["step"], set()).update(names)

    def train_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.start_time

    def on_row(self, step: int, row: dict[str, Any]) -> None:
        """Completes a row of metrics, and passes it to the writers and the display."""
        guard = self.watchers.guard
        updates = step - 1 - row.get("skipped", 0)
        row["learning_rate"] = float(np.asarray(self._rate(updates)))
        row |= guard("reading the figures of the devices", lambda: self.figures.of(row), {})
        row |= guard("reading the figures of the data", self.feed.figures, {})
        row |= guard("checking a row", lambda: self.watch.note(step, row, self.display.say), {})
        row |= self.watchers.figures()
        self.writers.write(step, row)
        guard("the display", lambda: self.display.on_row(step, row), None)

    def measured(self, step: int) -> bool:
        """Returns whether evaluators have been run at this step."""
        return step in self._measured

    def evaluated(self, step: int, row: dict[str, float] | None) -> None:
        """Writes a row of evaluators' values, unless that step has them already."""
        known = self._measured.setdefault(step, set())
        if not row or row.keys() <= known:
            return
        known.update(row)
        notes = self.watchers.guard(
            "checking a row", lambda: self.watch.note(step, row, self.display.say), {}
        )
        self.writers.write(step, row | notes)

    def save(self, state: TrainState, window: Window) -> None:
        """Starts writing a checkpoint."""
        step = int(state.step)
        run = {
            "config": to_json(as_stored(self.config)),
            "dtype": self.parts.model.dtype,
            "seed": self.config.seed,
            "loader_position": self.feed.position(step),
            "window": window.fetch(),
            "train_seconds": self.train_seconds(),
            "encoders": self.parts.encoders,
            "extensions": extensions.loaded(),
            "unwritten_rows": self.writers.unwritten(),
            **({"changes": changes_to_json(self.changes)} if self.changes else {}),
            **({"permanent": True} if self.saves.permanent(step) else {}),
        }
        self.checkpoints.save(state, run)

    def save_last(self, state: TrainState, window: Window) -> str:
        """Writes the checkpoint at which training stops, and returns how the run goes on.

        Before the last step, nothing is saved during a streak of non-finite steps. If the
        checkpoint cannot be written, all processes raise `NotWritten`.
        """
        step, count = int(state.step), streak(state)
        if count and step < self.config.max_steps:
            self.written(0.0)
            steps = self.checkpoints.steps()
            origin = f"from step {steps[0]}" if steps else "from the start"
            return (
                f"not saved, because the last {count} steps were not finite; the same command "
                f"resumes {origin}"
            )
        if self.checkpoints.step != step:
            self.save(state, window)

        def wait() -> str:
            return self.written(STOPPED_SECONDS if self.interruption.heard() else LAST_SECONDS)

        if problem := alone(wait, signal=self.interruption.heard):
            raise NotWritten(f"the checkpoint of step {step} could not be written: {problem}")
        return "the same command resumes"

    def written(self, seconds: float) -> str:
        """Waits for the last checkpoint, which is tried again for `seconds`. Returns why it could
        not be written, or ""."""
        try:
            self.checkpoints.wait(seconds)
        except Exception as error:  # any failure of the writer: the caller reports it
            return str(error) if isinstance(error, DiskFull) else last_line(error)
        return ""

    def way_out(self) -> str:
        """Returns how to rescue the run, which has diverged."""
        tried = [entry["step"] for entry in run_records(self.folder)["resumed_at"]]
        steps, best = self.checkpoints.steps(), self.watch.good_until()
        step = step_to_return_to(steps, best=best, tried=tried)
        return rescue_message(self.config, self.parts.model.dtype, step)


def hooks_of(run: CurrentRun, observer: Observer) -> tuple[Hook, ...]:
    """Returns the hooks of the loop. Saving comes first."""

    def save(step: int, state: TrainState, window: Window) -> None:
        if run.saves.due(step, state):
            run.save(state, window)

    def watch(step: int, state: TrainState, window: Window) -> None:
        observe(run, observer, state, due(run.config, step))

    return Hook(1, save), Hook(1, watch)


def due(config: TrainConfig, step: int) -> list[str]:
    """Returns what is due after a step, apart from a checkpoint: "sample", "evaluate"."""
    intervals = {"sample": config.sample_interval, "evaluate": config.eval_interval}
    return [name for name, every in intervals.items() if every and step % every == 0]


def catch_up(run: CurrentRun, observer: Observer, state: TrainState) -> None:
    """Makes up for the grid and the evaluation of the last step before a resume, if they are
    missing."""
    step = int(state.step)
    missing = [] if step == 0 else due(run.config, step)

    def really() -> list[str]:
        exists = {"sample": observer.grid(step).is_file(), "evaluate": run.measured(step)}
        return [name for name in missing if not exists[name]]

    observe(run, observer, state, alone(really) if missing else [])


def observe(run: CurrentRun, observer: Observer, state: TrainState, what: Sequence[str]) -> None:
    """Draws a sample grid, runs the evaluators, or both. Failures are only counted."""
    if not what:
        return
    step, held, watchers = int(state.step), on_first(state), run.watchers

    def evaluate(names: Sequence[str] | None = None) -> None:
        def measure() -> dict[str, float]:
            return observer.measure(held, observer.in_mid_run, names)

        run.evaluated(step, watchers.attend("the evaluation", measure))

    def act() -> bool:
        if "sample" in what:
            path = watchers.attend("the sample grid", lambda: observer.sample(step, held))
            if path is not None:
                run.writers.picture(step, path)
            write = run.page.write
            name, unwritten = "writing the report", run.writers.unwritten()
            watchers.attend(name, lambda: write(unwritten=unwritten))
            if not run.config.eval_interval and not run.watch.text_works:
                evaluate(["caption_effect"])
        if "evaluate" in what:
            evaluate()
        return run.interruption.heard() is not None

    # all processes stop after this step, so that the resumed run makes up for what is missing
    run.interruption.agreed = alone(act, signal=run.interruption.heard)


def on_first(state: TrainState) -> TrainState:
    """Returns the state with parameters and averages that process 0 can use without the others."""
    if not several():
        return state
    return replace(state, params=fetch(state.params), ema=fetch(state.ema))
