"""The settings with which the page may start a run of scenes, checked before anything is spent.

A run is resumed with the same command. Only settings in `FIELDS` reach a command line, so that a
folder from elsewhere cannot bring options of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, diff, replace, written
from pinxit.recipes import RECIPES
from pinxit.train.run_folder import claim, folder_of, saved_config
from pinxit.train.settings import TrainConfig

RECIPE = "scenes"
"""The recipe of runs that the page starts."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The names of such runs."""
FIELDS: dict[str, tuple[str, type, float, float]] = {
    "steps": ("max_steps", int, 1, 1_000_000),
    "batch_size": ("batch_size", int, 1, 1024),
    "learning_rate": ("optimizer.learning_rate", float, 1e-8, 1.0),
    "seed": ("seed", int, 0, 2**31 - 1),
    "rows": ("dataset_size", int, 16, 1_000_000),
    "log_interval": ("log_interval", int, 1, 100_000),
    "sample_interval": ("sample_interval", int, 0, 1_000_000),
    "save_interval": ("save_interval", int, 1, 1_000_000),
    "eval_interval": ("eval_interval", int, 0, 1_000_000),
    "eval_prompts": ("evaluation.prompts", int, 0, 4096),
    "eval_images": ("evaluation.images", int, 0, 4096),
}
"""The settings that the page may give: setting of training, type, smallest and largest value."""


def default_settings() -> dict[str, Any]:
    """Returns the values that the recipe has for `FIELDS`."""
    recipe = RECIPES[RECIPE]()
    return {name: _value_of(recipe, setting) for name, (setting, *_) in FIELDS.items()}


def checked_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of training by dotted name. Raises `UsageError` for an unknown name, a
    wrong type, or a value out of range."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name not in FIELDS:
            raise UsageError(str(name)[:80], value, problem="unknown", valid=list(FIELDS))
        setting, kind, low, high = FIELDS[name]
        is_number = type(value) is int or (kind is float and type(value) is float)
        if not is_number or not low <= value <= high:
            text = f"{'a number' if kind is float else 'a whole number'} from {low:g} to {high:g}"
            raise UsageError(name, str(value)[:80], problem="not possible", valid=text)
        settings[setting] = kind(value)
    return settings


def new_run(root: Path, name: str, values: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """Returns the settings and the words of a command that starts a run. Raises `UsageError` if the
    name is taken or a setting is wrong."""
    if not NAME.fullmatch(name):
        valid = "1 to 64 letters, digits, dots, dashes or underscores; a letter or digit first"
        raise UsageError("name", name[:80], problem="not possible", valid=valid)
    settings = checked_settings(values)
    config = replace(RECIPES[RECIPE](), {"name": name, "output_dir": str(root), **settings})
    if folder_of(config).root.exists():
        raise UsageError("name", name, problem="taken by another run", valid="a new name")
    claim(config.resolved())
    return config, _words(config, settings)


def resumed_run(root: Path, name: str, steps: int | None = None) -> tuple[TrainConfig, list[str]]:
    """Returns the settings and the words of the command that resumes a run, with more steps if they
    are given. Raises `UsageError` for a run that the page could not have started."""
    start = replace(RECIPES[RECIPE](), {"name": name, "output_dir": str(root)})
    saved = saved_config(folder_of(start))
    settings = {setting: _value_of(saved, setting) for setting, *_ in FIELDS.values()}
    if steps is not None:
        settings |= checked_settings({"steps": steps})
    config = replace(start, settings)
    try:
        claim(config.resolved())
    except UsageError as error:
        raise UsageError(
            f"the page resumes runs of the recipe {RECIPE} only: resume this one with the command "
            f"that started it ({error})"
        ) from error
    return config, _words(config, settings)


def _words(config: TrainConfig, settings: Mapping[str, Any]) -> list[str]:
    """Returns the words of a command for settings that differ from the recipe's."""
    start = replace(RECIPES[RECIPE](), {"name": config.name, "output_dir": config.output_dir})
    different = [name for name, _, _ in diff(start, config) if name in settings]
    words = ["--recipe", RECIPE, "--name", config.name, "--output_dir", config.output_dir]
    for name in different:
        words += [f"--{name}", written(settings[name])]
    return words


def _value_of(config: Any, setting: str) -> Any:
    for part in setting.split("."):
        config = getattr(config, part)
    return config
