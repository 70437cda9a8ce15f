"""Measures the rate of matrix products at the shapes of a training step, with JAX and with torch.

Each product of the step is measured alone, in a loop: the products of linear maps, both of their
gradients, whose factors are stored transposed, and the products of attention. From this follow two
limits, the time that the step would take if it had nothing but these products:

- *own*: each product at the rate at which its library computes it.
- *cores*: all of them at the best rate that any product of the step reached with either library.
  Measured rates stand for what the cores can do; a step nearer to this limit has less left to gain.

The script prints the rates of the products with the most arithmetic, and both limits.

    python benchmarks/product_rates.py --setup small
    python benchmarks/product_rates.py --setup small --cap avx2    # shows that the cap works

It needs the ``parity`` extra. Each library is alone in its process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_products import Product, operations, step_products
from process_turns import add_turn_options, answer, run_side, side_words
from processor_class import processor, processor_words, side_environment, usable_cores
from step_setups import add_setup_options, chosen_setup, network_config

LIBRARIES = ("jax", "torch")
SHOWN = 12
"""Number of products in the printed table."""
LARGE = 1e7
"""A product of fewer operations says nothing about the cores: calling it takes as long."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_setup_options(parser)
    add_turn_options(parser, seconds=0.1)
    return parser.parse_args()


def products_of(args: argparse.Namespace) -> list[Product]:
    """Returns the products of the chosen setup's step."""
    setup = chosen_setup(args)
    config = network_config(setup, args)
    return step_products(config, batch=setup.batch, grid=setup.grid, text=setup.text)


def stored_shapes(product: Product) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shapes of both factors as they lie in memory."""
    batch = (product.batch,) if product.batch > 1 else ()
    left = (product.k, product.m) if product.left else (product.m, product.k)
    right = (product.n, product.k) if product.right else (product.k, product.n)
    return (*batch, *left), (*batch, *right)


def with_jax(product: Product, dtype: str) -> Callable[[], Any]:
    """Returns a function that computes the product with JAX and waits for it."""
    import jax
    import jax.numpy as jnp

    shapes = stored_shapes(product)
    a, b = (jax.random.normal(jax.random.key(i), shape).astype(dtype) for i, shape in
            enumerate(shapes))  # fmt: skip

    @jax.jit
    def run(a: Any, b: Any) -> Any:
        a = jnp.swapaxes(a, -1, -2) if product.left else a
        return a @ (jnp.swapaxes(b, -1, -2) if product.right else b)

    return lambda: run(a, b).block_until_ready()


def with_torch(product: Product, dtype: str) -> Callable[[], Any]:
    """Returns a function that computes the product with torch."""
    import torch

    torch.set_num_threads(usable_cores())
    a, b = (torch.randn(shape).to(getattr(torch, dtype)) for shape in stored_shapes(product))
    a = a.transpose(-1, -2) if product.left else a
    b = b.transpose(-1, -2) if product.right else b
    return lambda: a @ b


def seconds_of(run: Callable[[], Any], seconds: float) -> float:
    """Returns the shortest wall time of the calls in a loop that lasts `seconds`.

    The shortest is what the cores can do. On a busy machine, the median is what others leave.
    """
    run()
    run()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_library(args: argparse.Namespace) -> None:
    """Measures every product with one library in this process."""
    make = with_jax if args.side == "jax" else with_torch
    dtype = "bfloat16" if args.amp else "float32"
    seconds = [seconds_of(make(product, dtype), args.seconds) for product in products_of(args)]
    answer({}, seconds=seconds)


def limits(
    products: Sequence[Product], seconds: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float] | float]:
    """Returns the step's arithmetic, the own limit of each library, and the limit of the cores.

    `seconds` are the times of one call of each product, for each library.
    """
    total = operations(products)
    own = {
        name: sum(time * each.count for time, each in zip(times, products, strict=True))
        for name, times in seconds.items()
    }
    large = [i for i, each in enumerate(products) if each.operations / each.count >= LARGE]
    best = max(
        (
            products[i].operations / products[i].count / times[i]
            for times in seconds.values()
            for i in large or range(len(products))
        ),
        default=0.0,
    )
    result: dict[str, Any] = {"operations": total, "own": own}
    return result | ({"rate": best, "cores": total / best} if best else {})


def measured_limits(
    words: Sequence[str], args: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Measures both libraries, each in a process; returns `limits`, with the times."""
    products = products_of(args)
    seconds: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    for name in LIBRARIES:
        result = run_side([*words, "--side", name], environment, 600)
        if "failure" in result:
            failures[name] = result["failure"]
        else:
            seconds[name] = result["seconds"]
    return {"failures": failures, "seconds": seconds, **limits(products, seconds)}


def limit_words(args: argparse.Namespace) -> list[str]:
    """Returns the command of this script for another script's options."""
    words = [sys.executable, __file__, "--setup", args.setup]
    words += ["--amp"] if args.amp else []
    for name in ("batch", "grid"):
        if getattr(args, name) is not None:
            words += [f"--{name}", str(getattr(args, name))]
    return words


def main() -> None:
    args = arguments()
    if args.side:
        return measure_library(args)
    products = products_of(args)
    words = side_words(__file__, "", "")[:-4]
    results = measured_limits(words, args, side_environment(args.cap, amp=args.amp))
    print(f"{chosen_setup(args).words()}, {'bfloat16' if args.amp else 'float32'}, on "
          f"{processor_words(processor(args.cap))}")  # fmt: skip
    for name, failure in results["failures"].items():
        print(f"{name} failed: {failure}")
    names = list(results["seconds"])
    print(f"| product (m, k, n) | in a step | {' | '.join(f'{x} GFLOP/s' for x in names)} |")
    print(f"|---|---:|{'---:|' * len(names)}")
    for i, product in enumerate(products[:SHOWN]):
        one = product.operations / product.count
        rates = " | ".join(f"{one / results['seconds'][x][i] / 1e9:.0f}" for x in names)
        batch = f"{product.batch} times " if product.batch > 1 else ""
        stored = " ".join(
            f"{side} stored transposed" for side in ("left", "right") if getattr(product, side)
        )
        shape = f"{batch}{product.m}, {product.k}, {product.n} {stored}".strip()
        print(f"| {shape} | {product.count} | {rates} |")
    print(f"{results['operations'] / 1e9:.1f} GFLOP in a step")
    for name in names:
        print(f"own limit of {name}: {results['own'][name]:.4f} s")
    if "cores" in results:
        print(f"limit of the cores, at {results['rate'] / 1e9:.0f} GFLOP/s: "
              f"{results['cores']:.4f} s")  # fmt: skip


if __name__ == "__main__":
    main()
