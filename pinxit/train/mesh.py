"""Devices as one axis, ``data``: the batch is cut along it, the state copied (or sharded) over it.

Data parallelism needs no code in the step: XLA sees a batch that lies on many devices and
parameters that lie on all of them, and adds the all-reduce itself. With ``fsdp`` every large array
of the state is sharded too, along its longest axis that divides; XLA gathers it where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"
FSDP_MINIMUM = 2**14
"""Arrays with fewer elements are copied to every device."""


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (or these) in a row."""
    return Mesh(np.asarray(jax.devices() if devices is None else list(devices)), (AXIS,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh, *, fsdp: bool = False) -> Any:
    """Where each array of `state` lies."""

    def of(leaf: Any) -> NamedSharding:
        return _cut_longest(leaf.shape, mesh) if fsdp and mesh.size > 1 else replicated(mesh)

    return jax.tree.map(of, state)


def weight_sharding(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding] | None:
    """Where each tensor of a frozen encoder lies when its weights are cut over the devices.

    None on one device.
    """
    if mesh.size == 1:
        return None
    return lambda name, shape: _cut_longest(shape, mesh)


def _cut_longest(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The longest axis that divides is cut over the devices; small arrays are copied."""
    axes = [axis for axis, size in enumerate(shape) if size % mesh.size == 0]
    if not axes or math.prod(shape) < FSDP_MINIMUM:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, AXIS))


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raises unless every piece of the batch divides over the devices."""
    if batch_size % (accumulation * mesh.size):
        raise ValueError(
            f"batch_size: {batch_size} must be a multiple of gradient_accumulation_steps "
            f"{accumulation} times the {mesh.size} devices, {accumulation * mesh.size}"
        )
