"""Small programs for eight devices whose collectives are easily counted by hand.

``python collective_programs.py TARGET`` compiles them for eight devices of this machine (``here``)
or for a target of the planner, and prints the bytes that a device sends, by program and collective.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pinxit.plan.compile_worker import described
from pinxit.plan.targets import HERE, get_target
from pinxit.plan.tpu_cycles import estimate

ROWS, COLUMNS = 1024, 256
"""The sides of a float32 matrix: 1 MiB."""


def programs(devices: list[Any]) -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """Returns functions and their arguments by name, on meshes of 2 x 4 and 2 x 2 x 2 devices."""
    two = Mesh(np.array(devices).reshape(2, 4), ("data", "fsdp"))
    three = Mesh(np.array(devices).reshape(2, 2, 2), ("data", "fsdp", "tensor"))

    def matrix(*spec: Any, mesh: Mesh = two, rows: int = ROWS) -> jax.ShapeDtypeStruct:
        where = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct((rows, COLUMNS), jnp.float32, sharding=where)

    def moved(*spec: Any) -> Callable[[Any], Any]:
        where = NamedSharding(two, PartitionSpec(*spec))
        return lambda x: jax.lax.with_sharding_constraint(x, where)

    def mapped(f: Callable[[Any], Any], before: Any, after: Any) -> Callable[[Any], Any]:
        specs = {"in_specs": PartitionSpec(before), "out_specs": PartitionSpec(after)}
        return jax.shard_map(f, mesh=two, check_vma=False, **specs)

    def product(x: Any, w: Any) -> Any:
        return x.T @ w

    ring = [(i, (i + 1) % 4) for i in range(4)]
    both = ("data", "fsdp")
    return {
        "gather over four": (moved("data"), [matrix("data", "fsdp")]),
        "gather over two": (moved(None, "fsdp"), [matrix("data", "fsdp")]),
        "gather over eight": (moved(), [matrix(both)]),
        "sum over four": (product, [matrix("fsdp"), matrix("fsdp")]),
        "sum over two axes of three": (
            product,
            [matrix(("data", "tensor"), mesh=three), matrix(("data", "tensor"), mesh=three)],
        ),
        "sum over eight": (mapped(lambda x: jax.lax.psum(x, both), both, None), [matrix(both)]),
        "exchange over four": (
            mapped(lambda x: jax.lax.all_to_all(x, "fsdp", 0, 0, tiled=True), "fsdp", "fsdp"),
            [matrix("fsdp")],
        ),
        "scatter over four": (
            mapped(lambda x: jax.lax.psum_scatter(x, "fsdp", tiled=True), None, "fsdp"),
            [matrix()],
        ),
        "permutation": (
            mapped(lambda x: jax.lax.ppermute(x, "fsdp", ring), "fsdp", "fsdp"),
            [matrix("fsdp")],
        ),
        "sum in a loop": (
            mapped(
                lambda x: jax.lax.fori_loop(0, 5, lambda i, y: jax.lax.psum(jnp.sin(y), both), x),
                None,
                None,
            ),
            [matrix()],
        ),
    }


def main() -> None:
    """Compiles and prints."""
    name = sys.argv[1]
    devices = jax.devices() if name == HERE else described(get_target(name))
    if len(devices) != 8:
        raise SystemExit(f"{len(devices)} devices")
    counts = {}
    for program, (function, arguments) in programs(devices).items():
        text = jax.jit(function).lower(*arguments).compile().as_text()
        counts[program] = estimate(text).collective_bytes
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
