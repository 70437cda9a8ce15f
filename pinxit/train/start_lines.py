"""The first lines of a run: the devices, the model, the batch, the data and the compilation."""

from __future__ import annotations

import math
from typing import Any

import jax

from pinxit.devices.device_figures import counted_kinds, memory_figures
from pinxit.devices.mesh import batch_parts
from pinxit.models.transformer import TransformerConfig, abstract
from pinxit.progress import counted
from pinxit.train.build import Parts
from pinxit.train.settings import TrainConfig

UNROLLED = 8
"""Number of unrolled blocks from which a compilation takes minutes instead of seconds."""


def model_lines(config: TrainConfig, parts: Parts) -> list[str]:
    """Returns lines about the model and the devices, and about one step."""
    model, mesh = parts.model, parts.mesh
    kinds = [str(device.device_kind) for device in mesh.devices.flat]
    own = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    limit = memory_figures(own).get("device_memory_limit_gb")
    memory = f" ({limit:.1f} GB each)" if limit else ""
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(model)[1]))
    tokens = parts.grid.tokens(config.image_size)
    pieces = config.pieces
    accumulated = f" in {pieces} accumulated pieces" if pieces > 1 else ""
    each = config.batch_size // batch_parts(mesh) // pieces
    shared = f", {each} per device at a time" if mesh.size > 1 or pieces > 1 else ""
    return [
        f"training {config.model.preset} ({parameters / 1e6:,.1f} million parameters) in "
        f"{model.dtype} on {counted_kinds(kinds)}{memory}",
        f"each step: {counted(config.batch_size, 'image')} of {config.image_size} x "
        f"{config.image_size} pixels, {tokens:,} tokens each{accumulated}{shared}",
    ]


def data_line(config: TrainConfig, loader: Any, *, step: int) -> str:
    """Returns a line about the rows, the steps and the epochs. `step` is the number taken."""
    steps = counted(config.max_steps, "step")
    done = f", of which {step:,} are done" if step else ""
    rows = getattr(loader, "rows", None)
    if rows is None:
        images = config.max_steps * config.batch_size
        return f"data: {config.dataset_name}, streamed; {steps}{done} need {images:,} images"
    epochs = config.max_steps * config.batch_size / len(rows)
    return (
        f"data: {config.dataset_name}, {counted(len(rows), 'row')}; {steps}{done} are {epochs:,.4g}"
        f" epoch{'' if epochs == 1 else 's'}"
    )


def compile_line(model: TransformerConfig, platform: str) -> str:
    """Returns the line that announces the compilation of the step. CPUs take seconds for it."""
    depth = model.depth
    if model.scan_blocks or depth < UNROLLED or platform == "cpu":
        return "compiling the training step"
    return (
        f"compiling the training step: {depth} unrolled blocks take some minutes, unless an "
        "earlier start left the program in the cache"
    )
