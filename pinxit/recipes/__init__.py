"""Recipes: functions that return a `TrainConfig`, to start from and to derive from.

To add one: a file with a function, and one line in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable

from pinxit.recipes.mock import mock
from pinxit.recipes.scenes import scenes, scenes_long
from pinxit.train.settings import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "scenes": scenes,
    "scenes_long": scenes_long,
    "mock": mock,
}
"""Recipes by name."""

__all__ = ["RECIPES", "mock", "scenes", "scenes_long"]
