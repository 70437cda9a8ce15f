"""A run that takes the whole state of another one and lets its learning rate fall (``decay_from``).

A trunk is trained at a constant rate (schedule ``constant`` or ``wsd``) for as long as one likes.
From any of its checkpoints, a short run with a falling rate gives a finished model, and the trunk
can go on. Such a run is bit for bit what the trunk would have been with that decay.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from pinxit.checkpoint_files import damage, step_of_checkpoint
from pinxit.config import UsageError
from pinxit.config import replace as with_settings
from pinxit.files import whole_folder
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.metric_rows import rows_until, write_rows
from pinxit.train.optimizer import decay_start
from pinxit.train.resume_policy import check_config, options_of
from pinxit.train.run_folder import RunFolder, folder_of, saved_config
from pinxit.train.settings import TrainConfig

OWN = (
    *("decay_from", "init_from", "optimizer.schedule", "optimizer.decay_steps"),
    "optimizer.final_fraction",
)
"""Settings in which such a run may differ from its trunk, besides those of every resumed run."""


def trunk_of(config: TrainConfig) -> RunFolder:
    """Returns the folder of the run that `decay_from` names."""
    return RunFolder(Path(str(config.decay_from)))


def decay_origin(config: TrainConfig) -> int:
    """Returns the step at which the decay starts. Raises `UsageError` unless it can start there.

    A run that exists already has its step in its settings. A new one starts from the step that
    resume_step names, or from the trunk's newest valid checkpoint.
    """
    if (own := folder_of(config)).config.is_file():
        saved = saved_config(own)
        if saved.decay_from is None or saved.optimizer.decay_steps is None:
            problem = "not possible: the run of this name exists and did not start that way"
            raise UsageError("decay_from", config.decay_from, problem=problem, valid="a new --name")
        return saved.max_steps - saved.optimizer.decay_steps
    trunk = trunk_of(config)
    if not trunk.config.is_file():
        problem = "not a run (it has no config.json)"
        raise UsageError("decay_from", config.decay_from, problem=problem, valid="runs/NAME")
    step = _step_in(trunk, config.resume_step)
    before = saved_config(trunk)
    _check_settings(before, config)
    _check_rate(before, step, config)
    if step >= config.max_steps:
        problem = f"not more than the {step} steps of the checkpoint to decay from"
        raise UsageError("max_steps", config.max_steps, problem=problem, valid=f"above {step}")
    return step


def _step_in(trunk: RunFolder, chosen: int | None) -> int:
    """Returns the step of the trunk's checkpoint to use."""
    checkpoints = Checkpoints(trunk.checkpoints)
    if chosen is not None:
        return step_of_checkpoint(checkpoints.folder_at(chosen)) or 0
    for folder in checkpoints.folders():
        if damage(folder) is None:
            return step_of_checkpoint(folder) or 0
    raise UsageError("decay_from", str(trunk.root), problem="without a valid checkpoint")


def _check_settings(before: TrainConfig, config: TrainConfig) -> None:
    """Raises if the new run's settings differ from its trunk's in more than the decay."""
    optimizer = replace(
        config.optimizer,
        schedule=before.optimizer.schedule,
        decay_steps=before.optimizer.decay_steps,
        final_fraction=before.optimizer.final_fraction,
    )
    alike = replace(
        config, optimizer=optimizer, decay_from=before.decay_from, init_from=before.init_from
    )
    check_config(before, alike, change=config.change, field="decay_from")


def _check_rate(before: TrainConfig, step: int, config: TrainConfig) -> None:
    """Raises unless the trunk's learning rate is still constant at `step`."""
    schedule = before.optimizer.schedule
    end = decay_start(before.optimizer, before.max_steps)
    if schedule == "constant" or (end is not None and step <= end):
        return
    if end is None:
        problem = f"not possible: its schedule is {schedule}, whose rate has fallen already"
        valid = "a run with --optimizer.schedule wsd or constant"
    else:
        problem = f"not possible from step {step}: its rate has been falling since step {end}"
        valid = options_of({"resume_step": end})
    raise UsageError("decay_from", config.decay_from, problem=problem, valid=valid)


def decaying(config: TrainConfig, step: int) -> TrainConfig:
    """Returns the settings of a run whose learning rate falls from `step` to the end."""
    decay = {"schedule": "wsd", "decay_steps": max(1, config.max_steps - step)}
    return with_settings(config, {f"optimizer.{name}": value for name, value in decay.items()})


def take_history(trunk: RunFolder, own: RunFolder, step: int) -> None:
    """Copies the trunk's metrics up to `step`, and its held-out rows, into a new run's folder."""
    if not own.metrics.exists():
        write_rows(own.metrics, rows_until(trunk.metrics, step))
    if trunk.held_out.is_dir() and not own.held_out.exists():
        with whole_folder(own.held_out) as temporary:
            shutil.copytree(trunk.held_out, temporary, dirs_exist_ok=True)
