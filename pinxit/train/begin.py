"""The state that a run begins with: new, from its own checkpoint, or from another run's.

A checkpoint stores the settings it was trained with. Those that differ from the current ones are
changes from its step on. They are part of the learning rate (`build_schedule`), they are printed,
and config.json keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.devices.mesh import state_shardings
from pinxit.devices.processes import alone
from pinxit.devices.transfer import place
from pinxit.stored_model import check_encoders
from pinxit.train.abandoned import move_aside
from pinxit.train.build import Parts, abstract_state, build_state
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.decay_from import decay_origin, take_history, trunk_of
from pinxit.train.display import Display
from pinxit.train.early_work import begun
from pinxit.train.init_from import started
from pinxit.train.optimizer import build_optimizer, build_schedule, decay_start
from pinxit.train.resume_policy import (
    SettingChange,
    changes_between,
    changes_from_json,
    changes_to_json,
    options_of,
)
from pinxit.train.run_folder import RunFolder, folder_of, run_records, start
from pinxit.train.settings import TrainConfig, config_from_json
from pinxit.train.state import TrainState
from pinxit.train.stored_state import load_state


@dataclass(frozen=True)
class Beginning:
    """The state that a run begins with."""

    state: Callable[[], TrainState]
    """Returns the state, once it is made."""
    step: int
    """The number of steps taken."""
    parts: Parts
    """The parts, with the optimiser that the run's changes ask for."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """The contents of the checkpoint's run.json, which are empty for a new run."""
    changes: tuple[SettingChange, ...] = ()
    """The changes that the run has made to its settings, in order."""
    leaves: bool = False
    """Whether the run leaves what it has already written after this step."""
    back: bool = False
    """Whether the run begins at a step that was asked for."""


def begin_run(
    config: TrainConfig,
    parts: Parts,
    checkpoints: Checkpoints,
    display: Display,
    *,
    back_to: int | None = None,
) -> Beginning:
    """Restores a checkpoint, or makes the state of a new run.

    The checkpoint is that of step `back_to`, else the newest valid one, else the one of the run
    that decay_from names.
    """
    like = abstract_state(config, parts)

    def read() -> dict[str, Any] | None:
        checkpoints.clean()
        restored = checkpoints.restore(like, step=back_to)
        from_trunk = restored is None and config.decay_from is not None
        if from_trunk:
            trunk = Checkpoints(trunk_of(config).checkpoints)
            restored = trunk.restore(like, step=decay_origin(config))
        if restored is None:
            return None
        for problem in restored.problems:
            display.say(f"warning: {problem}")
        skipped = int(restored.stored.numbers()["skipped"])
        at = {"step": restored.step, "updates": restored.step - skipped, "from_trunk": from_trunk}
        known = run_records(folder_of(config))["changes"]
        return {**restored.run, "begin": at, "known": known, "folder": str(restored.folder)}

    run = alone(read)
    if run is None:
        return Beginning(_new_state(config, parts, display.say), 0, parts)
    where = f"the run {config.decay_from if run['begin']['from_trunk'] else config.name}"
    check_encoders(run.get("encoders", {}), parts.encoders, where=where)
    if (step := run["begin"]["step"]) > config.max_steps:
        problem = f"less than the {step} steps that the run has already taken"
        raise UsageError("max_steps", config.max_steps, problem=problem, valid=f"{step} or more")
    changes = _changes(config, run, checkpoints, display.say)
    if changes:
        parts = replace(parts, optimizer=_optimizer(config, parts, changes))
    shardings = state_shardings(like, parts.mesh)
    state = _rescaled(load_state(Path(run["folder"]), like, shardings), parts, run)
    from_trunk = run["begin"]["from_trunk"]
    words = f"decaying from {where}, step {step}" if from_trunk else f"resuming after step {step}"
    display.say(words)
    return Beginning(
        lambda: state,
        int(state.step),
        parts,
        run,
        changes,
        leaves=back_to is not None or changes_to_json(changes) != run["known"],
        back=back_to is not None or from_trunk,
    )


def _new_state(
    config: TrainConfig, parts: Parts, say: Callable[[str], None]
) -> Callable[[], TrainState]:
    """Returns the function that returns the state of a new run.

    On a CPU, a thread compiles it, while the captions are read. An accelerator's memory may be too
    small for it, which must be known before the run is recorded in its folder.
    """

    def make() -> TrainState:
        return started(config, parts, build_state(config, parts), say=say)

    on_cpu = parts.mesh.size == 1 and parts.mesh.devices.flat[0].platform == "cpu"
    if on_cpu and config.init_from is None:
        return begun(make, name="state").result
    state = make()
    return lambda: state


def _optimizer(config: TrainConfig, parts: Parts, changes: tuple[SettingChange, ...]) -> Any:
    """Returns the optimiser of a run that has changed its settings."""
    heads = parts.model.num_heads
    return build_optimizer(config.optimizer, config.max_steps, num_heads=heads, changes=changes)


def _changes(
    config: TrainConfig,
    run: Mapping[str, Any],
    checkpoints: Checkpoints,
    say: Callable[[str], None],
) -> tuple[SettingChange, ...]:
    """Returns the changes of a run that goes on from a checkpoint, and prints the new ones."""
    at = run["begin"]
    with extensions.explained(run.get("extensions", {})):
        saved = config_from_json(run["config"])
    before = changes_from_json(run.get("changes", ()))
    changes = changes_between(saved, config, step=at["step"], updates=at["updates"], before=before)
    for change in changes:
        say(f"changed: {change}")
    updates = at["updates"]
    old = build_schedule(saved.optimizer, saved.max_steps, before)
    new = build_schedule(config.optimizer, config.max_steps, changes)
    was, now, last = (
        float(np.asarray(rate(count)))
        for rate, count in ((old, updates), (new, updates), (old, max(0, updates - 1)))
    )
    if updates and abs(was - now) > 1e-3 * max(was, now):
        text = f"the learning rate goes from {last:.3g} to {now:.3g} at step {at['step']}"
        only_longer = [change.setting for change in changes[len(before) :]] == ["max_steps"]
        say(text + (_longer(saved, config, at["step"], last, checkpoints) if only_longer else ""))
    return changes


def _longer(
    saved: TrainConfig, config: TrainConfig, step: int, last: float, checkpoints: Checkpoints
) -> str:
    """Returns why the rate of a run that is extended differs, and what to do about it."""
    text = f", because max_steps was {saved.max_steps} and is {config.max_steps} now. "
    end = decay_start(saved.optimizer, saved.max_steps)
    if end is not None and end in checkpoints.steps():
        words = options_of({"resume_step": end, "max_steps": config.max_steps})
        return text + f"To go on from before its decay, stop this and add {words}"
    rate = float(f"{last:.3g}")
    same = {"optimizer.schedule": "constant", "optimizer.learning_rate": rate}
    words = options_of({"resume_step": step, "change": True, **same})
    return text + f"To stay at the old rate, stop this and add {words}"


def _rescaled(state: TrainState, parts: Parts, run: Mapping[str, Any]) -> TrainState:
    """Returns the state with the initial loss scale if the run changes from or to float16."""
    half = parts.loss_scaling is not None
    before = run.get("dtype") or _dtype_of(run["config"])
    if before is None or (before == "float16") == half:
        return state
    scale = parts.loss_scaling.initial if parts.loss_scaling else 1.0
    first = place(np.float32(scale), state.loss_scale.sharding)
    return replace(state, loss_scale=first, good_steps=place(np.int32(0), first.sharding))


def _dtype_of(settings: Mapping[str, Any]) -> str | None:
    """Returns the dtype of a run whose checkpoint does not store it, if its settings decide it."""
    dtype = settings["model"].get("dtype")
    return dtype or (None if settings.get("use_amp") else "float32")


def enter(
    folder: RunFolder, config: TrainConfig, beginning: Beginning, about: Mapping[str, Any]
) -> str:
    """Moves aside what the run leaves, and records its settings. Returns what was moved, in words.

    Process 0 calls this before anything is written.
    """
    record = run_records(folder)
    aside = move_aside(folder, beginning.step) if beginning.leaves else None
    if beginning.back:
        entry = {"step": beginning.step, "aside": aside.name if aside else None}
        record["resumed_at"] = [*record["resumed_at"], entry]
    record["changes"] = changes_to_json(beginning.changes)
    start(folder, config, about, record)
    if config.decay_from is not None:
        take_history(trunk_of(config), folder, beginning.step)
    if aside is None:
        return ""
    return f"what the run wrote after step {beginning.step} is in {aside} (remove it if you like)"
