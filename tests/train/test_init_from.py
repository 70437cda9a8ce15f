"""A run that begins with another run's model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from pinxit import stored_model as release
from pinxit.config import UsageError
from pinxit.recipes import mock
from pinxit.train.build import build, build_state
from pinxit.train.init_from import started
from pinxit.train.run import run
from pinxit.train.settings import EmaConfig, ModelConfig, TrainConfig


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run at 32 pixels."""
    root = tmp_path_factory.mktemp("first")
    config = replace(
        mock(), dataset_size=8, max_steps=6, output_dir=str(root), log_interval=2,
        evaluation=replace(mock().evaluation, images=0),
    )  # fmt: skip
    return run(config, [], console=quiet()).folder


def second(first: Path, tmp_path: Path, **changes: Any) -> TrainConfig:
    config = replace(
        mock(), name="second", dataset_size=16, max_steps=4, output_dir=str(tmp_path),
        image_size=64, init_from=str(first), ema=EmaConfig(lengths=(0.05, 0.2)), log_interval=1,
        evaluation=replace(mock().evaluation, images=0),
    )  # fmt: skip
    return replace(config, **changes)


def test_parameters_and_averages_begin_there(first: Path, tmp_path: Path):
    config = second(first, tmp_path).resolved()
    parts = build(config)
    said: list[str] = []
    state = started(config, parts, build_state(config, parts), say=said.append)
    stored = release.read_model(first)
    for tree in (state.params, *state.ema.values()):
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(stored.params), strict=True)
        assert all(np.array_equal(np.asarray(a), b) for a, b in pairs)
    assert int(state.step) == 0
    assert said == [f"starting from {first} (step 6, ema {stored.details['ema']})"]


@pytest.mark.slow
def test_a_run_at_a_larger_size_goes_on_from_a_smaller(first: Path, tmp_path: Path):
    fine = run(second(first, tmp_path), [], console=quiet())
    fresh = run(second(first, tmp_path, name="fresh", init_from=None), [], console=quiet())

    def losses(folder: Path) -> list[float]:
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        return [row["loss"] for row in map(json.loads, rows) if "loss" in row]

    assert (fine.status, fine.step) == ("finished", 4)
    assert losses(fine.folder)[0] < losses(fresh.folder)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ModelConfig(preset="debug", depth=3)}, r"depth \(2 instead of 3\)"),
        (
            {"model": ModelConfig(preset="debug", rope_theta=9.0)},
            r"rope_theta \(10000.0 instead of 9",
        ),
        ({"init_from": "nowhere"}, "checkpoint: 'nowhere' is missing"),
    ],
)
def test_another_network_is_refused(first: Path, tmp_path: Path, changes: Any, said: str):
    with pytest.raises(UsageError, match=said):
        config = second(first, tmp_path, **changes).resolved()
        parts = build(config)
        started(config, parts, build_state(config, parts))
