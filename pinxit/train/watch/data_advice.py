"""Advice on faster data loading, and warnings about settings that cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinxit.data.sources.catalogue import SOURCES
from pinxit.guidance_warnings import out_of_range
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.settings import TrainConfig


def faster_data(config: TrainConfig, row: Mapping[str, Any]) -> str:
    """Returns advice for a step that waits for data, by the kind of data. `row` is the newest row
    of metrics."""
    name = config.dataset_name
    if name == PREPARED:
        return (
            f"the storage is too slow. Copy {config.dataset_path} to a local disk, prepare larger "
            "units (fewer files), or check for other load on this host. The first epoch also reads "
            "each shard once more to verify it"
        )
    if name in DATASETS:
        return (
            "the rows are in memory, so this host's CPU is the limit. Check for other load on it, "
            "or use a larger batch"
        )
    more = f"--fetch.concurrency {2 * config.fetch.concurrency}"
    if config.images.workers is not None:
        more += f" --images.workers {2 * config.images.workers}"
    path = f" --dataset_path {config.dataset_path}" if config.dataset_path else ""
    source = name if name in SOURCES else "SOURCE"
    advice = (
        f"fetch more images at once: run the same command with {more}, and it resumes this run. "
        "For a long run, fetch and encode the data once with "
        f"`pinxit prepare {source}{path} --out DIR` and train with --dataset_path DIR"
    )
    alive = row.get("alive_share")
    if alive is not None and alive < 0.9:
        advice += f". Only {alive:.0%} of the attempted rows yield an image"
    return advice


def before_training(config: TrainConfig) -> list[str]:
    """Returns warnings about settings, before any training."""
    warnings = []
    dropout = config.objective.caption_dropout
    scale = config.sampling.guidance_scale
    if unusual := out_of_range(scale):
        warnings.append(f"sampling.{unusual}")
    if dropout >= 1:
        warnings.append(
            "objective.caption_dropout is 1: every caption is replaced by the empty caption, so "
            "the model cannot learn to follow text. The usual value is 0.1"
        )
    elif dropout == 0 and scale not in (0, 1):
        warnings.append(
            "objective.caption_dropout is 0: the model never sees the empty caption, which "
            f"guidance needs (sampling.guidance_scale is {scale:g}). Use the usual value 0.1, or "
            "sample with --sampling.guidance_scale 1"
        )
    return warnings
