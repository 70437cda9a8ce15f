"""How the programs of a run are compiled on a CPU: with fewer optimisations, to the same values."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from pinxit.recipes.mock import mock
from pinxit.train.build import _compiler_options, _fresh, build, build_state


@pytest.mark.parametrize(
    ("platform", "dtype", "level"),
    [("cpu", "float32", 1), ("cpu", "bfloat16", None), ("gpu", "float32", None)],
)
def test_only_what_is_as_fast_is_optimised_less(platform, dtype, level):
    mesh: Any = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))
    options = _compiler_options(SimpleNamespace(mesh=mesh), dtype)  # type: ignore
    assert options.get("xla_backend_optimization_level") == level


def test_the_first_state_is_the_same_with_all_optimisations():
    config = replace(mock(), seed=3).resolved()
    parts = build(config)
    usual = jax.jit(partial(_fresh, config, parts))()
    for ours, other in zip(
        jax.tree.leaves(build_state(config, parts)), jax.tree.leaves(usual), strict=True
    ):
        np.testing.assert_array_equal(ours, other)
