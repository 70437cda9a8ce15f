"""A whole training run, from settings to report. `run` reads from top to bottom as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console

from pinxit.config import UsageError, to_json
from pinxit.release import check_encoders
from pinxit.train.advice import explained, is_out_of_memory
from pinxit.train.build import Parts, build, build_state, build_step
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.data_advice import before_training
from pinxit.train.display import Display
from pinxit.train.feed import Feed, open_feed, open_source_of
from pinxit.train.finish import Observer, best, finish
from pinxit.train.folder import RunFolder, claim, start
from pinxit.train.health import Watch
from pinxit.train.intake import Intake
from pinxit.train.loop import Hook, Interruption, NotFinite, train
from pinxit.train.mesh import batch_sharding, replicated, state_shardings
from pinxit.train.metrics import Window
from pinxit.train.optimizer import build_schedule
from pinxit.train.prepare import frozen_arrays
from pinxit.train.settings import TrainConfig
from pinxit.train.start import started
from pinxit.train.state import TrainState
from pinxit.train.writers import JsonLines, TensorBoard, WeightsAndBiases, Writer, read_rows


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    status: Literal["finished", "stopped", "failed"]
    """Stopped: by a signal, to be resumed. Failed: see `reason`."""
    folder: Path
    """Everything it wrote."""
    step: int
    """Steps taken."""
    results: dict[str, Any] = field(default_factory=dict)
    """Final figures, as in results.json."""
    reason: str = ""
    """Why it ended, if not because it was done."""

    @property
    def exit_code(self) -> int:
        """0 unless it failed."""
        return 1 if self.status == "failed" else 0


class _Stop(Exception):
    """A signal came after the last step."""


@dataclass
class _Run:
    """The moving parts of one run."""

    config: TrainConfig
    parts: Parts
    folder: RunFolder
    display: Display
    checkpoints: Checkpoints
    writers: list[Writer]
    feed: Feed
    watch: Watch
    seconds: float = 0.0
    """Training time before this process."""
    begun: float = field(default_factory=time.perf_counter)

    def write(self, step: int, values: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def train_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.begun

    def validated(self, step: int, losses: dict[str, float], probe: dict[str, float]) -> None:
        """Writes a row of validation losses and of what captions do, once for a step."""
        row = {f"validation_loss/{name}": loss for name, loss in losses.items()} | probe
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

    def save(self, state: TrainState, window: Window, *, wait: bool = False, **more: Any) -> None:
        """A checkpoint; if the one before could not be written, says so and goes on."""
        run = {
            "config": to_json(self.config),
            "seed": self.config.seed,
            "loader_position": self.feed.position(int(state.step)),
            "window": window.fetch(),
            "train_seconds": self.train_seconds(),
            "encoders": self.parts.encoders,
            **more,
        }
        try:
            self.checkpoints.wait()
        except OSError as error:
            self.display.say(f"warning: a checkpoint could not be written: {error}")
        self.checkpoints.save(state, run, wait=wait, overwrite=bool(more))


def run(
    config: TrainConfig, argv: Sequence[str] | None = None, *, console: Console | None = None
) -> RunResult:
    """Trains as `config` says, or goes on with a run of the same name; `argv` is for the report."""
    try:
        return _run(config, argv, console)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ended = error
    display = Display(config.name, max_steps=config.max_steps, console=console)
    reason = explained(ended, config.resolved(), say=display.say)
    display.say(reason)
    return RunResult("failed", Path(config.output_dir) / config.name, 0, reason=reason)


def _run(config: TrainConfig, argv: Sequence[str] | None, console: Console | None) -> RunResult:
    config = config.resolved()
    folder = claim(config)
    display = Display(config.name, max_steps=config.max_steps, console=console)
    done = folder.finished()
    if done is not None and done["step"] >= config.max_steps:
        display.say(f"{folder.root} is finished ({done['step']} steps): see {folder.report}")
        return RunResult("finished", folder.root, done["step"], done)
    source = open_source_of(config)
    parts = build(config)
    for note in parts.notes:
        display.say(note)
    state = build_state(config, parts)
    checkpoints = Checkpoints(folder.checkpoints, keep=config.keep_checkpoints)
    state, window, seconds, position = _restore(config, parts, checkpoints, state, display)
    step = int(state.step)
    if step > config.max_steps:
        problem = f"less than the {step} steps the run has taken"
        raise UsageError("max_steps", config.max_steps, problem=problem, valid=f"{step} or more")
    feed = open_feed(config, parts, folder, display, source=source, position=position)
    parts = replace(parts, text=feed.text)
    start(folder, config, {"command": list(argv or sys.argv)})
    feed.begin()
    writers = _writers(config, folder, step)
    watch = Watch(config, parts.model.dtype, before=read_rows(folder.metrics))
    moving = _Run(config, parts, folder, display, checkpoints, writers, feed, watch, seconds)
    for warning in before_training(config) if step == 0 else ():
        display.say(f"warning: {warning}")
    display.on_step(step)
    with Interruption() as interruption, display.live():
        try:
            return _train_and_finish(moving, state, window, interruption, argv or sys.argv)
        except NotFinite as error:
            checkpoints.wait()
            display.say(str(error))
            return RunResult("failed", folder.root, step, reason=str(error))


def _restore(
    config: TrainConfig,
    parts: Parts,
    checkpoints: Checkpoints,
    state: TrainState,
    display: Display,
) -> tuple[TrainState, Window, float, Any]:
    """The run as its newest valid checkpoint has it, or as it begins: with its seconds so far and
    its position in the data."""
    checkpoints.clean()
    restored = checkpoints.restore(state)
    if restored is None:
        return started(config, parts, state, say=display.say), Window(), 0.0, None
    for problem in restored.problems:
        display.say(f"warning: {problem}")
    where = f"the run {config.name}"
    check_encoders(restored.run.get("encoders", {}), parts.encoders, where=where)
    display.say(f"resuming after step {restored.step}")
    shardings = state_shardings(state, parts.mesh, fsdp=config.fsdp)
    state = jax.device_put(restored.state, shardings)
    run = restored.run
    return state, Window(run["window"]), run["train_seconds"], run.get("loader_position")


def _writers(config: TrainConfig, folder: RunFolder, step: int) -> list[Writer]:
    """Where the metrics go."""
    writers: list[Writer] = [
        JsonLines(folder.metrics, resume_at=step),
        TensorBoard(folder.root, resume_at=step),
    ]
    if config.wandb:
        writers.append(WeightsAndBiases(config.name, folder.root, to_json(config)))
    return writers


def _hooks(moving: _Run, observer: Observer) -> tuple[Hook, ...]:
    """What happens on the way. Saving comes last: what a checkpoint has seen is on the disk."""

    config = moving.config

    def sample(step: int, state: TrainState, window: Window) -> None:
        observer.sample(step, state)
        if not config.eval_interval and not moving.watch.text_works:
            moving.validated(step, {}, observer.probe(state))

    def evaluate(step: int, state: TrainState, window: Window) -> None:
        moving.validated(step, observer.validate(state), observer.probe(state))

    def save(step: int, state: TrainState, window: Window) -> None:
        moving.save(state, window)

    return (
        Hook(config.sample_interval, sample),
        Hook(config.eval_interval, evaluate),
        Hook(config.save_interval, save),
    )


def _train_and_finish(
    moving: _Run,
    state: TrainState,
    window: Window,
    interruption: Interruption,
    command: Sequence[str],
) -> RunResult:
    """The loop, then the last checkpoint and the report."""
    config, parts, feed = moving.config, moving.parts, moving.feed
    observer = Observer(config, parts, moving.folder, moving.display, feed.held_out)
    sharding = batch_sharding(parts.mesh)
    frozen = frozen_arrays(parts.text, feed.columns, parts.encoder_in_step(config))
    feed.watch(lambda: interruption.requested is not None)
    state, window = train(
        build_step(config, parts, state),
        state,
        feed.loader,
        frozen=jax.device_put(frozen, replicated(parts.mesh)),
        max_steps=config.max_steps,
        log_interval=config.log_interval,
        on_row=moving.on_row,
        on_step=moving.display.on_step,
        hooks=_hooks(moving, observer),
        place=Intake(lambda raw: jax.device_put(raw, sharding), moving.display.say),
        window=window,
        interruption=interruption,
        max_skipped=config.max_skipped,
    )
    step = int(state.step)
    try:
        moving.save(state, window, wait=True)
    except OSError as error:
        reason = f"the checkpoint of step {step} could not be written: {error}"
        moving.display.say(reason)
        return RunResult("failed", moving.folder.root, step, reason=reason)
    if feed.ended() and step < config.max_steps and not interruption.requested:
        reason = f"the data ended after step {step}: {feed.ended()}; the same command resumes"
        moving.display.say(f"stopped: {reason}")
        return RunResult("failed", moving.folder.root, step, reason=reason)

    def check() -> None:
        if interruption.requested:
            raise _Stop

    observer.check = check
    try:
        check()
        return _finish(moving, observer, state, window, command)
    except _Stop:
        reason = f"{interruption.requested} after step {step}; the same command resumes"
        moving.display.say(f"stopped: {reason}")
        return RunResult("stopped", moving.folder.root, step, reason=reason)


def _finish(
    moving: _Run, observer: Observer, state: TrainState, window: Window, command: Sequence[str]
) -> RunResult:
    """Chooses the average to keep, records it in the last checkpoint, and reports."""
    folder, seconds = moving.folder, moving.train_seconds()
    validation = observer.validate(state)
    probe = observer.probe(state)
    moving.validated(int(state.step), validation, probe)
    chosen = best(validation, state)
    moving.save(state, window, wait=True, best_ema=chosen)
    results = finish(
        observer,
        state,
        chosen=chosen,
        validation=validation,
        command=command,
        seconds=seconds,
        data=moving.feed.results(),
        noticed={"warnings": [asdict(one) for one in moving.watch.findings], "probe": probe},
    )
    if accuracy := results["accuracy"].get("prompts/accuracy/mean"):
        ceiling = results["accuracy"]["prompts/ceiling/mean"]
        moving.display.say(f"held-out prompt accuracy {accuracy:.3f} (ceiling {ceiling:.3f})")
    moving.display.say(f"finished: {folder.report}")
    return RunResult("finished", folder.root, results["step"], results)
