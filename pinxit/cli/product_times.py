"""Measures a training step's products with each of XLA's libraries, in the given dtypes.

    python -m pinxit.cli.product_times float32 bfloat16

It computes the gradient of attention and an MLP with the libraries in turns, and prints the medians
in seconds as JSON. `cpu_products` calls it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from pinxit.cli.xla_environment import LIBRARIES

ROUNDS = 5
BATCH, TOKENS, HEADS, WIDTH = 2, 256, 6, 384
"""The sizes of the preset `small` on latents of 32 x 32, without text."""


def energy(kernels: list[Any], x: Any) -> Any:
    """Returns the mean square of attention and an MLP on tokens `x`."""
    import jax.numpy as jnp
    from einops import rearrange

    from pinxit.models.attention_kernels import attend
    from pinxit.models.gating import gated_product
    from pinxit.models.norms import rms_norm
    from pinxit.models.products import product

    projected = product(rms_norm(x, jnp.ones(WIDTH)), kernels[0])
    heads = rearrange(projected, "b n (s k f) -> s b k n f", s=3, k=HEADS)
    x = x + attend(heads[0], heads[1], heads[2], jnp.ones(x.shape[:2], bool))
    gate, up = jnp.split(product(x, kernels[1]), 2, axis=-1)
    return jnp.mean(jnp.square((x + gated_product(gate, up, kernels[2])).astype(jnp.float32)))


def inputs() -> tuple[list[Any], Any]:
    """Returns the kernels and the tokens."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = ((WIDTH, 3 * WIDTH), (WIDTH, 7 * WIDTH), (7 * WIDTH // 2, WIDTH))
    kernels = [rng.normal(size=shape).astype(np.float32) / 32 for shape in shapes]
    return kernels, rng.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)


def seconds_by_library(dtypes: Sequence[str]) -> dict[str, float]:
    """Returns the seconds of the gradient by dtype and library, such as "bfloat16 ynn"."""
    import jax
    import jax.numpy as jnp

    kernels, tokens = jax.device_put(inputs())
    compiling = {}
    with ThreadPoolExecutor() as pool:
        for dtype in dtypes:
            x = jnp.asarray(tokens, dtype)
            lowered = jax.jit(jax.grad(energy, argnums=(0, 1))).lower(kernels, x)
            for library, flag in LIBRARIES.items():
                name, value = flag.removeprefix("--").split("=")
                program = pool.submit(lowered.compile, {name: value})
                compiling[f"{dtype} {library}"] = (program, x)
    programs = {name: (program.result(), x) for name, (program, x) in compiling.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS + 1):  # the first one warms up
        for name, (program, x) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(kernels, x))
            times[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in times.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(seconds_by_library(sys.argv[1:])))
