"""Recipes: functions that return the settings of a run, which other settings may then override.

To add one, write a function, and add one line to `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pinxit.config import UsageError
from pinxit.data.packed.packed_manifest import is_packed, read_packed
from pinxit.data.prepared.dataset import is_dataset
from pinxit.data.sources.catalogue import SOURCES
from pinxit.prepare.ledger import Ledger
from pinxit.recipes.coyo import (
    coyo_256,
    coyo_256_a100,
    coyo_256_pixels,
    coyo_256_pod,
    coyo_256_v100,
    coyo_512,
    coyo_test,
    source_256,
)
from pinxit.recipes.mock import mock
from pinxit.recipes.scenes import scenes, scenes_long
from pinxit.train.settings import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "scenes": scenes,
    "scenes_long": scenes_long,
    "mock": mock,
    "coyo_256": coyo_256,
    "coyo_256_pixels": coyo_256_pixels,
    "coyo_256_a100": coyo_256_a100,
    "coyo_256_v100": coyo_256_v100,
    "coyo_512": coyo_512,
    "coyo_256_pod": coyo_256_pod,
    "coyo_test": coyo_test,
    **{f"{name}_256": partial(source_256, name) for name in SOURCES if name != "coyo"},
}
"""The recipes by name."""

__all__ = [
    *("RECIPES", "mock", "recipe_for", "recipe_of", "scenes", "scenes_long", "source_256"),
    *("coyo_256", "coyo_256_a100", "coyo_256_pixels", "coyo_256_pod", "coyo_256_v100"),
    *("coyo_512", "coyo_test"),
]


def recipe_of(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the recipe of a command line, and its remaining arguments.

    The recipe is the one that `--recipe` names, or else the one for the dataset.
    """
    rest: list[str] = []
    recipe: str | None = None
    dataset: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--recipe":
            recipe = value if equals else next(words, "")
            continue
        rest.append(word)
        name = name.removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in ("dataset_name", "dataset_path"):
            if not equals:
                value = next(words, "")
                rest.append(value)
            dataset[name] = value
    if recipe is not None and recipe not in RECIPES:
        raise UsageError("recipe", recipe, valid=list(RECIPES))
    return recipe or recipe_for(dataset.get("dataset_name"), dataset.get("dataset_path")), rest


def recipe_for(dataset: str | None, path: str | None = None) -> str:
    """Returns the name of the recipe for a dataset.

    It is the recipe with the dataset's name, or the one for its source, or else "scenes". A
    prepared dataset counts as the source that it was prepared from.
    """
    if path and is_dataset(path):
        if is_packed(path):
            identity = read_packed(path).identity
        else:
            identity = Ledger(Path(path).expanduser(), "images").identity() or {}
        dataset = identity.get("source", {}).get("name", dataset)
    if dataset in SOURCES:  # an extension may have added it after this module was imported
        RECIPES.setdefault(f"{dataset}_256", partial(source_256, dataset))
    names = (dataset, f"{dataset}_256", "scenes")
    return next(name for name in names if name in RECIPES)
