"""Devices as one axis, ``data``: the batch is cut along it, the state copied (or sharded) over it.

Data parallelism needs no code in the step: XLA sees a batch that lies on many devices and
parameters that lie on all of them, and adds the all-reduce itself. With ``fsdp`` every large array
of the state is sharded too, along its longest axis that divides; XLA gathers it where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not fsdp or mesh.size == 1 or not axes or leaf.size < FSDP_MINIMUM:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, AXIS))

    return jax.tree.map(of, state)


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raises unless every piece of the batch divides over the devices."""
    if batch_size % (accumulation * mesh.size):
        raise ValueError(
            f"batch_size: {batch_size} must be a multiple of gradient_accumulation_steps "
            f"{accumulation} times the {mesh.size} devices, {accumulation * mesh.size}"
        )
