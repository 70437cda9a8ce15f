"""Advice about data: how to read them faster, and which settings cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinxit.data.sources.catalogue import SOURCES
from pinxit.guidance_warnings import out_of_range
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.settings import TrainConfig


def faster_data(config: TrainConfig, row: Mapping[str, Any]) -> str:
    """What to try where the step waits, by the kind of data; `row` is the last row of metrics."""
    name = config.dataset_name
    if name == PREPARED:
        return (
            f"its storage is too slow: copy {config.dataset_path} to a local disk, prepare larger "
            "units (fewer files), or look for other work on this host; the first epoch also reads "
            "each shard once to verify it"
        )
    if name in DATASETS:
        return (
            "rows are in memory, so it is this host's processors: look for other work on them, or "
            "make the batch larger"
        )
    advice = []
    alive = row.get("alive_share")
    if alive is not None and alive < 0.9:
        advice.append(f"{alive:.0%} of the rows tried give an image")
    more = f"--fetch.concurrency {2 * config.fetch.concurrency}"
    if config.images.workers is not None:
        more += f" --images.workers {2 * config.images.workers}"
    advice.append(f"more at once ({more}; the same command with them goes on from here)")
    path = f" --dataset_path {config.dataset_path}" if config.dataset_path else ""
    named = name if name in SOURCES else "SOURCE"
    advice.append(
        "or, for more than a try, fetch and encode once: "
        f"pinxit prepare {named}{path} --out DIR, then --dataset_path DIR"
    )
    return ", ".join(advice)


def before_training(config: TrainConfig) -> list[str]:
    """What can be said of the settings alone."""
    said = []
    dropout = config.objective.caption_dropout
    scale = config.sampling.guidance_scale
    if unusual := out_of_range(scale):
        said.append(f"sampling.{unusual}")
    if dropout >= 1:
        said.append(
            "objective.caption_dropout is 1: every caption is replaced by the empty one, and the "
            "model will not know text; 0.1 is usual"
        )
    elif dropout == 0 and scale not in (0, 1):
        said.append(
            "objective.caption_dropout is 0: the model never sees the empty caption, which "
            f"guidance (sampling.guidance_scale {scale:g}) steers away from; 0.1 is usual, or draw "
            "with --sampling.guidance_scale 1"
        )
    return said
