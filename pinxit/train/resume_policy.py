"""Which settings of a run may change when it is resumed, and the record of those that did.

There are three classes. *Free* settings do not change what a run learns, or only say how long it
goes on. *Changeable* settings change what it learns from that step on: they are accepted with
``--change 1`` only, and each change is recorded. All others are fixed, since a run that mixes two
of their values would be neither run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pinxit.config import KIND, UsageError, diff, written

FREE_FIELDS = (
    *("name", "output_dir", "resume", "resume_step", "change", "max_steps", "max_skipped"),
    *("keep_checkpoints", "keep_every", "log", "wandb", "profile_steps"),
    *("mesh", "distributed"),
    *("log_interval", "save_interval", "sample_interval", "eval_interval", "watch_timeout"),
    *("sampling", "samples", "evaluation", "dataset_path", "fetch", "outage_hours", "cache_gb"),
    *("gradient_accumulation_steps", "model.remat", "model.scan_blocks"),
    *("model.scan_unroll", "model.attention", "encoder_chunk"),
    *("images.timeout", "images.workers", "images.memory_mb"),
)
"""Settings that may change when a run is resumed, including all their subfields. The devices may
change too: arrays are stored whole, so any mesh and any number of processes can resume."""
CHANGEABLE = (
    *("optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.schedule"),
    *("optimizer.decay_steps", "optimizer.final_fraction", "optimizer.clip_norm"),
    *("optimizer.weight_decay", "optimizer.b1", "optimizer.b2", "optimizer.eps"),
    *("optimizer.momentum", "use_amp", "model.dtype"),
)
"""Settings that may change with ``--change 1``. The arrays of the state do not depend on them."""
RECORDED = (*CHANGEABLE, "max_steps")
"""Settings whose changes are recorded. max_steps is free, but most schedules depend on it."""


@dataclass(frozen=True)
class SettingChange:
    """A setting that changed when a run was resumed."""

    step: int
    """Number of steps taken before the change."""
    updates: int
    """Number of updates before the change: the steps that were not skipped."""
    setting: str
    """Dotted name of the setting."""
    old: Any
    new: Any

    def __str__(self) -> str:
        """Returns the change in words, with the values as the command line writes them."""
        return f"{self.setting} {written(self.old)} -> {written(self.new)} from step {self.step}"


def options_of(settings: Mapping[str, Any]) -> str:
    """Returns settings by dotted name as words of the command line."""
    return " ".join(f"{_option(name)} {written(value)}" for name, value in settings.items())


def _option(name: str) -> str:
    """Returns the option of a setting. The kind of an objective is chosen by --objective."""
    return f"--{name.removesuffix(f'.{KIND}')}"


def _is_free(name: str) -> bool:
    return name in FREE_FIELDS or name.partition(".")[0] in FREE_FIELDS


def check_config(saved: Any, current: Any, *, change: bool = False, field: str = "resume") -> None:
    """Raises if settings changed that may not. `change` allows those in `CHANGEABLE`. `field` is
    the setting that makes the run go on from the settings `saved`."""
    differences = [entry for entry in diff(saved, current) if not _is_free(entry[0])]
    fixed = [entry for entry in differences if entry[0] not in CHANGEABLE]
    asked = [] if change else [entry for entry in differences if entry[0] in CHANGEABLE]
    if not (fixed or asked):
        return
    message = f"{field}: the settings differ from the run's"
    if fixed:
        old = {name: value for name, value, _ in fixed}
        message += f": {_listed(fixed)}. Use the run's settings ({options_of(old)}), or start a "
        message += "new run with --name"
    if asked:
        message += f"{'. These' if fixed else ', in settings that'} may change"
        message += f" if you add --change 1: {_listed(asked)}"
        if not fixed:
            old = {name: value for name, value, _ in asked}
            message += f". To go on without the change: {options_of(old)}"
    raise UsageError(message)


def changeable_differences(saved: Any, current: Any) -> list[tuple[str, Any, Any]]:
    """Returns the differences in settings that may change with ``--change 1``."""
    return [entry for entry in diff(saved, current) if entry[0] in CHANGEABLE]


def _listed(differences: Sequence[tuple[str, Any, Any]]) -> str:
    """Returns differences in words, as the command line writes settings."""
    return "; ".join(
        f"{_option(name)} (was {written(old)}, is {written(new)})" for name, old, new in differences
    )


def changes_between(
    saved: Any, current: Any, *, step: int, updates: int, before: Sequence[SettingChange] = ()
) -> tuple[SettingChange, ...]:
    """Returns the changes of a run that goes on from a checkpoint: those `before` it, which it
    stores, and those between its settings `saved` and the `current` ones."""
    new = [
        SettingChange(step, updates, name, old, value)
        for name, old, value in diff(saved, current)
        if name in RECORDED
    ]
    return (*before, *new)


def changes_to_json(changes: Sequence[SettingChange]) -> list[dict[str, Any]]:
    """Returns the changes as config.json stores them."""
    return [asdict(change) for change in changes]


def changes_from_json(values: Sequence[Mapping[str, Any]]) -> tuple[SettingChange, ...]:
    """Inverts `changes_to_json`."""
    return tuple(SettingChange(**value) for value in values)
