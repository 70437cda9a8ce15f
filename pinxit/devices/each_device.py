"""Runs a program on several devices of this process at once, each on its own rows.

Every device runs the program that one device would run alone, on arrays of the same shapes and
without communication. So a row's result has the same bytes on one device as on eight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "device"
"""The name of the mesh's axis."""


def mesh_of(devices: Sequence[Any]) -> Mesh | None:
    """Returns a mesh of the devices, or None for a single one, which needs no mesh."""
    return Mesh(np.asarray(devices), (AXIS,)) if len(devices) > 1 else None


def on_each(function: Callable[..., Any], mesh: Mesh | None, *, shared: int) -> Callable[..., Any]:
    """Returns `function` for all devices of `mesh`, for use under `jax.jit`.

    Its first `shared` arguments are the same on every device. The leading axis of all other
    arguments, and of the results, is split over the devices.
    """
    if mesh is None:
        return function

    def on_all(*arguments: Any) -> Any:
        split = len(arguments) - shared
        specs = (PartitionSpec(),) * shared + (PartitionSpec(AXIS),) * split
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False
        )(*arguments)

    return on_all


def copied(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the arrays with a copy on each device of `mesh`, or unchanged without a mesh."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
