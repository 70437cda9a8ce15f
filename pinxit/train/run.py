"""A complete training run, from settings to report. `_run` lists its phases in order.

All processes of a run execute this code. They compute, gather and save arrays on the devices
together. Code inside `alone` runs on process 0 only, while the others wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
from rich.console import Console

from pinxit.config import UsageError, to_json
from pinxit.devices.mesh import frozen_shardings, local_rows, state_shardings
from pinxit.devices.processes import (
    Agreement,
    Together,
    alone,
    asked_to_stop,
    check_same,
    initialise,
    is_first,
)
from pinxit.devices.transfer import place, place_batch, spread
from pinxit.stored_model import check_encoders
from pinxit.train.auto_settings import settled
from pinxit.train.build import Parts, abstract_state, build, build_state, build_step
from pinxit.train.checkpoint import Checkpoints, Restored
from pinxit.train.current_run import CurrentRun, NotWritten, hooks_of, on_first
from pinxit.train.display import Display
from pinxit.train.encode_step import frozen_arrays
from pinxit.train.init_from import started
from pinxit.train.input.caption_check import Intake
from pinxit.train.input.open import open_feed, open_source_of
from pinxit.train.loop import Interruption, NotFinite, train
from pinxit.train.metric_window import Window
from pinxit.train.metric_writers import check_wandb, open_writers, read_rows
from pinxit.train.report.finish import finish
from pinxit.train.report.observer import Observer, best_of, losses_in, names_of
from pinxit.train.report.page import summary
from pinxit.train.run_folder import changed_extensions, claim, folder_of, start
from pinxit.train.save_schedule import SaveSchedule
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState
from pinxit.train.watch.data_advice import before_training
from pinxit.train.watch.out_of_memory import is_out_of_memory, memory_advice
from pinxit.train.watch.run_health import RunWatch

T = TypeVar("T")


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run."""

    status: Literal["finished", "stopped", "failed"]
    """Status of the run. A stopped run got a signal and can be resumed. A failed run has a
    `reason`."""
    folder: Path
    """Folder with everything that the run wrote."""
    step: int
    """Number of steps taken."""
    results: dict[str, Any] = field(default_factory=dict)
    """Final results, as in results.json."""
    reason: str = ""
    """Reason why the run stopped or failed."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 1 if the run failed, else 0."""
        return 1 if self.status == "failed" else 0


class _Stop(Exception):
    """Raised when a signal arrives after the last step."""


def run(
    config: TrainConfig, argv: Sequence[str] | None = None, *, console: Console | None = None
) -> RunResult:
    """Trains with the settings `config`, or resumes the run of that name. `argv` is the command for
    the report."""
    try:
        return _run(config, argv, console)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        caught = error
    display = _display(config, console)
    reason = memory_advice(caught, config, say=display.say)
    display.say(reason)
    return RunResult("failed", Path(config.output_dir) / config.name, 0, reason=reason)


def _display(config: TrainConfig, console: Console | None) -> Display:
    """Returns the display. It is quiet on all processes except process 0."""
    own = console if is_first() else Console(quiet=True)
    return Display(config.name, max_steps=config.max_steps, console=own)


def _run(config: TrainConfig, argv: Sequence[str] | None, console: Console | None) -> RunResult:
    config = config.resolved()
    initialise(config.distributed)
    check_same(to_json(config), apart="distributed")
    check_wandb(config.wandb)
    display = _display(config, console)
    folder = folder_of(config)
    done = alone(lambda: claim(config).finished())
    if done is not None and done["step"] >= config.max_steps:
        display.say(f"{folder.root} is finished ({done['step']} steps). Report: {folder.report}")
        return RunResult("finished", folder.root, done["step"], done)
    for name in alone(lambda: changed_extensions(folder)):
        display.say(f"warning: {name} has changed since the last start of this run")
    source = open_source_of(config)
    parts = build(config, say=display.say)
    for note in parts.notes:
        display.say(note)
    config, parts, choice = settled(config, parts, say=display.say)
    checkpoints = Checkpoints(
        folder.checkpoints, keep=config.keep_checkpoints, keep_every=config.keep_every
    )
    state, window, seconds, position = _begin(config, parts, checkpoints, display)
    step = int(state.step)
    if step > config.max_steps:
        problem = f"less than the {step} steps that the run has already taken"
        raise UsageError("max_steps", config.max_steps, problem=problem, valid=f"{step} or more")
    feed = open_feed(config, parts, folder, display, source=source, position=position)
    about = {"command": list(argv or sys.argv), "automatic": choice.to_json()}
    alone(lambda: start(folder, config, about))
    feed.begin()
    writers = open_writers(folder, config, resume_at=step) if is_first() else []
    watch = RunWatch(config, parts.model.dtype, before=read_rows(folder.metrics))
    saves = SaveSchedule(config)
    moving = CurrentRun(
        config, parts, folder, display, checkpoints, writers, feed, watch, saves, seconds
    )
    for warning in before_training(config) if step == 0 else ():
        display.say(f"warning: {warning}")
    display.on_step(step)
    with Interruption() as interruption, display.live():
        try:
            return _train_and_finish(moving, state, window, interruption, argv or sys.argv)
        except (NotFinite, NotWritten) as error:
            moving.written()
            display.say(str(error))
            return RunResult("failed", folder.root, display.step, reason=str(error))


def _begin(
    config: TrainConfig, parts: Parts, checkpoints: Checkpoints, display: Display
) -> tuple[TrainState, Window, float, Any]:
    """Restores the newest valid checkpoint, or starts a new run. Returns the state, the window, the
    training time so far in seconds, and the position in the data."""
    like = abstract_state(config, parts)
    checkpoint: list[Restored] = []

    def read() -> dict[str, Any] | None:
        checkpoints.clean()
        restored = checkpoints.restore(like)
        if restored is None:
            return None
        for problem in restored.problems:
            display.say(f"warning: {problem}")
        checkpoint.append(restored)
        return restored.run

    run = alone(read)
    if run is None:
        state = build_state(config, parts)
        return started(config, parts, state, say=display.say), Window(), 0.0, None
    where = f"the run {config.name}"
    check_encoders(run.get("encoders", {}), parts.encoders, where=where)
    restored_state = checkpoint.pop().state if checkpoint else None
    state = spread(restored_state, like, state_shardings(like, parts.mesh))
    display.say(f"resuming after step {int(state.step)}")
    return state, Window(run["window"]), run["train_seconds"], run.get("loader_position")


def _train_and_finish(
    moving: CurrentRun,
    state: TrainState,
    window: Window,
    interruption: Interruption,
    command: Sequence[str],
) -> RunResult:
    """Runs the loop, then writes the last checkpoint and the report."""
    config, parts, feed = moving.config, moving.parts, moving.feed
    observer = Observer(config, parts, moving.folder, moving.display, feed.held_out)
    rows = local_rows(parts.mesh, config.batch_size)
    frozen = frozen_arrays(feed.text, feed.text_columns, parts.encoder_in_step(config))
    feed.watch(lambda: interruption.requested is not None)
    agreement = Agreement(parts.mesh)
    interruption.agree = agreement
    state, window = train(
        Together(build_step(config, parts, state, feed.text)),
        state,
        feed.loader,
        frozen=place(frozen, frozen_shardings(frozen, parts.mesh)),
        max_steps=config.max_steps,
        log_interval=config.log_interval,
        on_row=moving.on_row,
        on_step=moving.display.on_step,
        hooks=hooks_of(moving, observer),
        place=Intake(
            lambda columns: place_batch(columns, parts.mesh, rows, config.batch_size),
            moving.display.say,
        ),
        window=window,
        interruption=interruption,
        max_skipped=config.max_skipped,
    )
    stop = agreement.now(interruption.requested is not None)
    step = int(state.step)
    goes_on = moving.save_last(state, window)
    if feed.ended() and step < config.max_steps and not stop:
        reason = f"the data ended after step {step}: {feed.ended()} ({goes_on})"
        moving.display.say(f"stopped: {reason}")
        return RunResult("failed", moving.folder.root, step, reason=reason)
    results = None if stop else _finish(moving, observer, state, window, interruption, command)
    if results is None:
        signal = interruption.requested or "a signal to another process"
        reason = f"{signal} after step {step} ({goes_on})"
        moving.display.say(f"stopped: {reason}")
        return RunResult("stopped", moving.folder.root, step, reason=reason)
    moving.display.say(f"finished: {summary(results)}")
    moving.display.say(f"report: {moving.folder.report}")
    return RunResult("finished", moving.folder.root, results["step"], results)


def _finish(
    moving: CurrentRun,
    observer: Observer,
    state: TrainState,
    window: Window,
    interruption: Interruption,
    command: Sequence[str],
) -> dict[str, Any] | None:
    """Chooses the best average, records it in the last checkpoint, and writes the report.

    Returns the results, or None if a signal arrived.
    """
    seconds, held = moving.train_seconds(), on_first(state)

    def check() -> None:
        interruption.requested = interruption.requested or asked_to_stop()
        if interruption.requested:
            raise _Stop

    def unless_stopped(act: Callable[[], T]) -> T | None:
        try:
            return act()
        except _Stop:
            return None

    def measure() -> dict[str, float]:
        check()
        values = observer.measure(held, names_of(best=False))
        moving.evaluated(int(state.step), values)
        return values

    def report(chosen: str, measured: dict[str, float]) -> dict[str, Any]:
        later = observer.measure(held, names_of(best=True), chosen=chosen)
        moving.evaluated(int(state.step), later)
        return finish(
            observer,
            held,
            chosen=chosen,
            values=measured | later,
            command=command,
            seconds=seconds,
            data=moving.feed.results(),
            warnings=[asdict(one) for one in moving.watch.findings],
        )

    observer.check = check
    measured = alone(lambda: unless_stopped(measure), signal=lambda: interruption.requested)
    if measured is None:
        return None
    chosen = best_of(losses_in(measured), state)
    moving.save_now(state, window, best_ema=chosen)
    return alone(
        lambda: unless_stopped(lambda: report(chosen, measured)),
        signal=lambda: interruption.requested,
    )
