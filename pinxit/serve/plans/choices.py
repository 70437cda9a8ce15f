"""The choices of the planner's form: recipes with their defaults, machines, policies, presets."""

from __future__ import annotations

import inspect
from typing import Any

from pinxit.config import UsageError, flattened
from pinxit.models.transformer import PRESETS
from pinxit.plan.targets import CARDS, GIB, HERE, SLICES, get_target
from pinxit.plan.vendor_compilers import CompilerMissing, find_compiler
from pinxit.recipes import RECIPES
from pinxit.serve.plans.settings import planned_settings
from pinxit.train.model_settings import POLICIES

POLICY_MEANINGS = {
    "none": "keeps everything: fast, most memory",
    "dots": "keeps matrix products only",
    "full": "computes blocks again: slow, least memory",
    "offload": "as dots, in the host's memory",
}
"""Explanations of the rematerialisation policies."""


def plan_choices() -> dict[str, Any]:
    """Returns all choices as plain values."""
    return {
        "recipes": [_recipe(name) for name in RECIPES],
        "targets": [_here(), *(_target(name) for name in target_names())],
        "presets": list(PRESETS),
        "policies": [
            {"name": name, "meaning": meaning} for name, meaning in POLICY_MEANINGS.items()
        ],
        "searched": list(POLICIES),
    }


def target_names() -> list[str]:
    """Returns the names of all machines but `here`: cards, machines of eight, slices of TPUs."""
    cards = [name for card in CARDS for name in (card, f"8x{card}")]
    slices = [f"tpu-{kind}-{number}" for kind in SLICES for number in SLICES[kind]]
    return [*slices, *cards]


def _target(name: str) -> dict[str, Any]:
    """Describes a machine, with the command that installs its compiler if it is missing."""
    target, command = get_target(name), None
    try:
        find_compiler(target.platform, target=name)
    except CompilerMissing as error:
        command = error.command
    return {
        "name": name,
        "title": target.chip.title,
        "devices": target.devices,
        "gib": round(target.chip.memory / GIB, 2),
        "kind": "TPU" if target.platform == "tpu" else "GPU",
        "install": command,
    }


def _here() -> dict[str, Any]:
    """Describes this machine, whose devices only a compiler's process looks at."""
    about = {"name": HERE, "title": "this machine", "devices": None, "gib": None}
    return {**about, "kind": "This machine", "install": None}


def _recipe(name: str) -> dict[str, Any]:
    """Describes a recipe by the first sentence of its documentation and its main settings."""
    make = RECIPES[name]
    config = make()
    text = inspect.getdoc(getattr(make, "func", make)) or ""
    values = flattened(config)
    names = [one for one in planned_settings(config) if one in values]
    try:
        size = config.resolved().image_size
    except UsageError:
        size = config.image_size
    return {
        "name": name,
        "summary": _summary(text),
        "defaults": {**{one: values[one] for one in names}, "image_size": size},
    }


def _summary(text: str) -> str:
    """Returns the first sentence of a recipe's documentation as the description of a thing."""
    words = " ".join(text.partition("\n\n")[0].split()).replace("`", "")
    words = words.removeprefix("Returns ")
    return words[:1].upper() + words[1:]
