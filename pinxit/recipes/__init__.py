"""Recipes: functions that return a `TrainConfig`, to start from and to derive from.

To add one: a file with a function, and one line in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable

from pinxit.recipes.coyo import coyo_256, coyo_test
from pinxit.recipes.coyo_more import coyo_256_a100, coyo_256_pod, coyo_256_v100, coyo_512
from pinxit.recipes.mock import mock
from pinxit.recipes.scenes import scenes, scenes_long
from pinxit.train.settings import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "scenes": scenes,
    "scenes_long": scenes_long,
    "mock": mock,
    "coyo_256": coyo_256,
    "coyo_256_a100": coyo_256_a100,
    "coyo_256_v100": coyo_256_v100,
    "coyo_512": coyo_512,
    "coyo_256_pod": coyo_256_pod,
    "coyo_test": coyo_test,
}
"""Recipes by name."""

__all__ = [
    *("RECIPES", "mock", "scenes", "scenes_long"),
    *("coyo_256", "coyo_256_a100", "coyo_256_pod", "coyo_256_v100", "coyo_512", "coyo_test"),
]
