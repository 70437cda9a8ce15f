"""A complete training run, from settings to report. `_run` lists its phases in order.

All processes of a run execute this code. They compute, gather and save arrays on the devices
together. Code inside `alone` runs on process 0 only, while the others wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from pinxit.callers_thread import run_in_callers_thread
from pinxit.compiled_programs import write_whole_entries
from pinxit.config import to_json
from pinxit.data.row import Source
from pinxit.devices.common_steps import Agreement, Together
from pinxit.devices.mesh import frozen_shardings, local_rows
from pinxit.devices.processes import (
    Stopped,
    alone,
    check_same,
    initialise,
    is_first,
)
from pinxit.devices.transfer import place, place_batch
from pinxit.free_memory import return_after_compiling
from pinxit.train.attended_work import attended
from pinxit.train.auto_settings import settled
from pinxit.train.background_writer import BackgroundWriters
from pinxit.train.begin import Beginning, begin_run, enter
from pinxit.train.build import build, build_step
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.current_run import CurrentRun, NotWritten, catch_up, hooks_of, on_first
from pinxit.train.decay_from import decay_origin, decaying
from pinxit.train.display import Display
from pinxit.train.encode_step import frozen_arrays
from pinxit.train.final_phase import final_phase
from pinxit.train.input.caption_check import Intake
from pinxit.train.input.feed import Feed, ended_anywhere
from pinxit.train.input.open import open_feed, open_source_of
from pinxit.train.interruption import Interruption
from pinxit.train.loop import NotFinite, train
from pinxit.train.metric_rows import rows_until
from pinxit.train.metric_window import Window
from pinxit.train.metric_writers.catalogue import check_installed, tracker_names, writers_of
from pinxit.train.metric_writers.writer import RecordedRun
from pinxit.train.report.observer import Observer
from pinxit.train.report.run_view import summary
from pinxit.train.run_folder import RunFolder, changed_extensions, claim, folder_of, going_back
from pinxit.train.run_starts import recorded
from pinxit.train.save_schedule import SaveSchedule
from pinxit.train.settings import TrainConfig
from pinxit.train.source_settings import as_begun, begun_with, chosen_for
from pinxit.train.start_lines import data_line, model_lines
from pinxit.train.state import TrainState
from pinxit.train.step_profile import StepProfile, steps_to_profile
from pinxit.train.step_watch import StepFigures, WatchedStep
from pinxit.train.watch.data_advice import before_training
from pinxit.train.watch.out_of_memory import is_out_of_memory, memory_advice
from pinxit.train.watch.run_health import RunWatch
from pinxit.train.watch.watchers import Watchers

CLOSE_SECONDS, STOP_SECONDS = 60.0, 4.0
"""Seconds for trackers to send what they have at the end of a run, and after a signal."""
GRACE = 5.0
"""Seconds that loading has to end after a signal, before its thread is left behind."""


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


def run(
    config: TrainConfig, argv: Sequence[str] | None = None, *, console: Console | None = None
) -> RunResult:
    """Trains with the settings `config`, or resumes the run of that name. `argv` is the command for
    the report."""
    run_in_callers_thread()
    write_whole_entries()
    return_after_compiling()
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
    old_name = config.wandb
    config = config.resolved()
    initialise(config.distributed)
    check_same(to_json(config), apart="distributed")
    check_installed(tracker_names(config.log))
    config = as_begun(config, alone(lambda: begun_with(config)))
    display = _display(config, console)
    if old_name:
        display.say(f"--wandb 1 is the old name of --log {config.log}")
    folder = folder_of(config)
    if config.decay_from is not None:
        config = decaying(config, alone(lambda: decay_origin(config)))
    done = alone(lambda: claim(config).finished())
    back_to = alone(lambda: going_back(config))
    if done is not None and done["step"] >= config.max_steps and back_to is None:
        display.say(f"{folder.root} is finished ({done['step']} steps). Report: {folder.report}")
        return RunResult("finished", folder.root, done["step"], done)
    if config.resume_step is not None and back_to is None and config.decay_from is None:
        display.say(_went_back(config.resume_step))
    for name in alone(lambda: changed_extensions(folder)):
        display.say(f"warning: {name} has changed since the last start of this run")
    command = list(argv or sys.argv)
    with Interruption() as interruption:
        try:
            opened, state, window = attended(
                lambda: _open(config, folder, display, interruption, command, back_to),
                name="start",
                stop=interruption.heard,
                grace=GRACE,
            )
        except Stopped:
            return _stopped(display, folder, interruption, "before the first step")
        with display.live():
            return _recorded(opened, lambda: _train_and_finish(opened, state, window))


def _open(
    config: TrainConfig,
    folder: RunFolder,
    display: Display,
    interruption: Interruption,
    command: list[str],
    back_to: int | None,
) -> tuple[CurrentRun, TrainState, Window]:
    """Loads the encoders, the state and the data, and creates the run's folder."""
    config, source = _open_source(config, display)
    parts = build(config, say=display.say)
    for note in parts.notes:
        display.say(note)
    config, parts, choice = settled(config, parts, say=display.say)
    display.say("\n".join(model_lines(config, parts)))
    checkpoints = Checkpoints(
        folder.checkpoints,
        keep=config.keep_checkpoints,
        keep_every=config.keep_every,
        say=display.say,
    )
    beginning = begin_run(config, parts, checkpoints, display, back_to=back_to)
    parts, run, step = beginning.parts, beginning.run, beginning.step
    about = {"command": command, "automatic": choice.to_json()}
    feed = _enter(config, beginning, folder, display, source, about)
    display.say(data_line(config, feed.loader, step=step))
    feed.watch(lambda: interruption.requested is not None)
    feed.begin(step)
    watchers = Watchers(
        display.say,
        stop=interruption.heard,
        seconds=config.watch_timeout,
        step=lambda: display.step,
    )
    unwritten = run.get("unwritten_rows", [])
    before = rows_until(folder.metrics, step, unwritten)
    facts = RecordedRun(config.name, folder.root, to_json(config), resume_at=step)
    openers = writers_of(facts, folder.metrics, config.log, unwritten=unwritten)
    opened = CurrentRun(
        config=config,
        parts=parts,
        folder=folder,
        display=display,
        checkpoints=checkpoints,
        writers=BackgroundWriters(openers if is_first() else {}, watchers.failed),
        feed=feed,
        watch=RunWatch(config, parts.model.dtype, before=before, steps=checkpoints.steps),
        saves=SaveSchedule(config),
        watchers=watchers,
        figures=StepFigures(config, parts, feed.text),
        interruption=interruption,
        step=step,
        changes=beginning.changes,
        seconds=run.get("train_seconds", 0.0),
        before=before,
    )
    for warning in before_training(config) if step == 0 else ():
        display.say(f"warning: {warning}")
    display.on_step(step)
    return opened, beginning.state(), Window(run.get("window", ()))


def _open_source(config: TrainConfig, display: Display) -> tuple[TrainConfig, Source | None]:
    """Opens the source of a run that streams, and returns it with the settings chosen for it."""
    source = open_source_of(config, say=display.say)
    for line in source.unused if source is not None else ():
        display.say(f"not read: {line}")
    config, line = chosen_for(config, source)
    if line:
        display.say(line)
    return config, source


def _went_back(step: int) -> str:
    """Returns what to know if the command asks again for a step that the run went back to."""
    return (
        f"the run went back to step {step} before, so it goes on from its newest checkpoint (to go "
        "back again, name another step, or another setting with --change 1)"
    )


def _enter(
    config: TrainConfig,
    beginning: Beginning,
    folder: RunFolder,
    display: Display,
    source: Source | None,
    about: dict[str, Any],
) -> Feed:
    """Opens the data and records the run in its folder, which nothing has changed before."""

    def record() -> None:
        if moved := alone(lambda: enter(folder, config, beginning, about)):
            display.say(moved)

    # a run that decays from another one takes its held-out rows, which the feed looks for
    takes = config.decay_from is not None
    if takes:
        record()
    position = beginning.run.get("loader_position")
    feed = open_feed(config, beginning.parts, folder, display, source=source, position=position)
    if not takes:
        record()
    return feed


def _recorded(run: CurrentRun, act: Callable[[], RunResult]) -> RunResult:
    """Runs `act`, and records the start and the end of the run in its folder. Then brings the page
    of a run that has not finished up to date, since the final phase writes it otherwise."""
    if not is_first():
        return _closed(run, act)

    def attend(record: Callable[[], None]) -> None:
        run.watchers.attend("recording the start and the end", record)

    result = recorded(run.folder.root, run.step, lambda: _closed(run, act), attend)
    if result.status != "finished":
        run.watchers.attend("writing the report", run.page.write)
    return result


def _closed(run: CurrentRun, act: Callable[[], RunResult]) -> RunResult:
    """Runs `act`, then closes the writers of metrics."""
    seconds = CLOSE_SECONDS
    try:
        return act()
    except (NotFinite, NotWritten) as error:
        with suppress(Exception):  # said when it happened
            run.checkpoints.wait()
        reason = str(error)
        if isinstance(error, NotFinite):
            reason = f"{reason}. {run.way_out()}"
        run.display.say(reason)
        return RunResult("failed", run.folder.root, run.display.step, reason=reason)
    except KeyboardInterrupt:
        seconds = 0.0
        raise
    finally:
        run.writers.close(STOP_SECONDS if run.interruption.heard() and seconds else seconds)


def _stopped(
    display: Display,
    folder: RunFolder,
    interruption: Interruption,
    when: str,
    goes_on: str = "the same command resumes",
) -> RunResult:
    """Says that a signal ended the run."""
    reason = f"{interruption.heard() or 'a signal to another process'} {when} ({goes_on})"
    display.say(f"stopped: {reason}")
    return RunResult("stopped", folder.root, display.step, reason=reason)


def _train_and_finish(run: CurrentRun, state: TrainState, window: Window) -> RunResult:
    """Runs the loop, then writes the last checkpoint and the report."""
    config, parts, feed, interruption = run.config, run.parts, run.feed, run.interruption
    observer = Observer(
        config, parts, run.folder, run.display, feed.held_out, failed=run.watchers.failed
    )
    catch_up(run, observer, state)
    rows = local_rows(parts.mesh, config.batch_size)
    frozen = frozen_arrays(feed.text, feed.text_columns, parts.encoder_in_step(config))
    agreement = Agreement(parts.mesh)
    interruption.agree = agreement
    interruption.ending = lambda: bool(feed.ended())
    frozen = place(frozen, frozen_shardings(frozen, parts.mesh))
    with closing(feed), closing(_watched_step(run, state)) as step_fn:
        if run.step < config.max_steps:
            step_fn.compile(state, frozen, feed.shapes())
        state, window = train(
            step_fn,
            state,
            feed.loader,
            frozen=frozen,
            max_steps=config.max_steps,
            log_interval=config.log_interval,
            on_row=run.on_row,
            on_step=run.display.on_step,
            hooks=hooks_of(run, observer),
            place=Intake(
                lambda columns: place_batch(columns, parts.mesh, rows, config.batch_size),
                run.display.say,
                run.watchers.guard,
            ),
            window=window,
            interruption=interruption,
            max_skipped=config.max_skipped,
        )
    stop = agreement.now(interruption.requested is not None)
    ended = ended_anywhere(feed)
    step = int(state.step)
    if step == run.step and step < config.max_steps and ended:  # nothing is new
        return _data_ended(run, step, ended, "the same command resumes")
    if stop and step == run.step:
        return _stopped(run.display, run.folder, interruption, f"after step {step}")
    goes_on = run.save_last(state, window)
    if ended and step < config.max_steps and interruption.requested is None:
        return _data_ended(run, step, ended, goes_on)
    results = None if stop else final_phase(run, observer, on_first(state))
    if results is None:
        return _stopped(run.display, run.folder, interruption, f"after step {step}", goes_on)
    run.display.say(f"finished: {summary(results)}")
    if run.folder.report.is_file():
        run.display.say(f"report: {run.folder.report}")
    return RunResult("finished", run.folder.root, results["step"], results)


def _data_ended(run: CurrentRun, step: int, why: str, goes_on: str) -> RunResult:
    """Says why there are no more data."""
    reason = f"the data ended after step {step}: {why} ({goes_on})"
    run.display.say(f"stopped: {reason}")
    return RunResult("failed", run.folder.root, step, reason=reason)


def _watched_step(run: CurrentRun, state: TrainState) -> WatchedStep:
    """Returns the step of this run, which says that it compiles, and profiles what is asked for."""
    config, parts, say = run.config, run.parts, run.display.say

    def attend(act: Callable[[], Any]) -> Any:
        return attended(act, name="compile", stop=run.interruption.heard)

    step = build_step(config, parts, state, run.feed.text)
    span = steps_to_profile(config.profile_steps) if is_first() else None
    return WatchedStep(
        Together(step, attend, signal=run.interruption.heard),
        parts=parts,
        start=int(state.step),
        figures=run.figures,
        profile=StepProfile(span, run.folder.root / "profile", say=say),
        say=say,
        compiled=run.feed.compiled,
    )
