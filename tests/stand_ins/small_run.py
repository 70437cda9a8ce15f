"""A run of seconds for tests and drills, and what to compare of two runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pinxit.checkpoint_files import arrays_of_checkpoint
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import RunResult, run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

TIMED = (
    *("images_per_second", "seconds_per_step", "step_seconds", "data_wait_share", "memory_gb"),
    *("watch_failures", "warnings"),
)
"""Figures of a row that differ between equal runs."""


def small_run(bundle: Path, folder: Path, **changes: Any) -> TrainConfig:
    """Returns the settings of a run with a grid, an evaluation and a checkpoint every 4 steps."""
    settings: dict[str, Any] = {
        "name": "small",
        "dataset_name": "mock",
        "dataset_size": 24,
        "image_size": 16,
        "batch_size": 4,
        "max_steps": 12,
        "text_encoder": str(bundle),
        "vae": str(bundle),
        "log_interval": 2,
        "save_interval": 4,
        "sample_interval": 4,
        "eval_interval": 4,
        "keep_checkpoints": 9,
        "output_dir": str(folder),
        "model": ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        "sampling": Sampling(steps=1),
        "samples": SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        "evaluation": EvalConfig(images=10, batch_size=10, prompts=0),
    }
    return TrainConfig(**settings | changes)


def run_to_examine(bundle: Path, folder: Path) -> TrainConfig:
    """Returns the settings of the run that the tests of the doctor break."""
    return small_run(
        bundle,
        folder,
        name="good",
        dataset_size=16,
        max_steps=6,
        save_interval=3,
        sample_interval=3,
        eval_interval=0,
        keep_checkpoints=2,
        samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
    )


def train_here(config: TrainConfig) -> tuple[RunResult, str]:
    """Runs in this process. Returns the result and the output."""
    output = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=output, width=200))
    return result, output.getvalue()


def rows_without_times(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl without speed, memory and warnings."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def arrays_of(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Returns all arrays of a checkpoint by their path in the tree."""
    return arrays_of_checkpoint(folder / "checkpoints" / f"step_{step:08d}")


def same_arrays(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Returns whether two checkpoints are equal bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )
