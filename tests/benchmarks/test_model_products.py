"""The counted products are those of the step: by hand, by its program, and by XLA's own count."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters.partial_eval import dce_jaxpr
from model_products import Product, gathered, operations, step_products
from product_rates import limits, stored_shapes, with_jax

from pinxit.arrays import Conditioning
from pinxit.models.transformer import TransformerConfig, apply, init_params

BATCH, GRID, TEXT = 3, 8, 5
SHAPE = {"hidden_size": 32, "depth": 2, "num_heads": 4, "patch_size": 2, "context_dim": 24}
NETWORKS = {
    "scanned": {},
    "unrolled": {"scan_blocks": False},
    "per block": {"modulation": "per_block"},
    "no rank": {"modulation_rank": 0},
    "pixels": {"in_channels": 3, "bottleneck_size": 8},
}


def loss_of(config: TransformerConfig) -> tuple[Any, tuple[Any, ...]]:
    """Returns the loss of a batch with its gradient, and the arguments."""
    shape = (BATCH, GRID, GRID, config.in_channels)
    conditioning = Conditioning(
        tokens=jnp.ones((BATCH, TEXT, config.context_dim)), mask=jnp.ones((BATCH, TEXT), bool)
    )
    params = init_params(config, jax.random.key(0))

    def loss(params: Any, x: Any, t: Any) -> Any:
        return jnp.mean(jnp.square(apply(config, params, x, t, conditioning)))

    return jax.value_and_grad(loss), (params, jnp.ones(shape), jnp.full((BATCH,), 0.5))


def operations_in(jaxpr: Any, times: int = 1) -> int:
    """Counts the operations of all matrix products in a program, those in loops included.

    Of the forms for several platforms one is computed, and all have the same operations.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = math.prod(left[i] for i in contracted)
            total += 2 * times * depth * math.prod(equation.outvars[0].aval.shape)
        inner = (
            times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        )
        if equation.primitive.name == "cond":
            (each,) = {operations_in(form.jaxpr, times) for form in equation.params["branches"]}
            total += each
            continue
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                program = getattr(one, "jaxpr", one)
                total += operations_in(program, inner) if hasattr(program, "eqns") else 0
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_those_of_the_program(name):
    config = TransformerConfig(**SHAPE | NETWORKS[name])
    products = step_products(config, batch=BATCH, grid=GRID, text=TEXT)
    program, arguments = loss_of(config)
    traced = jax.make_jaxpr(program)(*arguments).jaxpr
    # Gradients of the network's inputs are traced, but nothing uses them.
    used, _ = dce_jaxpr(traced, [True] * len(traced.outvars), instantiate=True)
    assert operations(products) == operations_in(used)


def test_products_are_most_of_what_xla_counts():
    config = TransformerConfig(**SHAPE | {"hidden_size": 128, "scan_blocks": False})
    program, arguments = loss_of(config)
    counted = jax.jit(program).lower(*arguments).cost_analysis()["flops"]
    products = operations(step_products(config, batch=BATCH, grid=GRID, text=TEXT))
    assert 0.85 * counted < products < counted


def test_a_step_counted_by_hand():
    config = TransformerConfig(**SHAPE | {"modulation_rank": 0, "mlp_ratio": 3.0})
    image, words, d = BATCH * 16, BATCH * TEXT, 32
    blocks = image * d * d * (4 + 3 * 3) + words * d * d * 2
    outside = image * d * 16 + BATCH * d * (d + 2 * d + 6 * d)
    first = image * 16 * d + words * 24 * d + BATCH * 256 * d  # whose input has no gradient
    scores = BATCH * 16 * (16 + TEXT) * d
    expected = 6 * (2 * blocks + outside) + 4 * first + 2 * 6 * 2 * scores
    assert operations(step_products(config, batch=BATCH, grid=GRID, text=TEXT)) == expected


def test_equal_products_are_gathered():
    one, other = Product(2, 3, 4, count=2), Product(2, 3, 4, left=True)
    assert gathered([one, other, one]) == [Product(2, 3, 4, count=4), other]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("left", "right"), [(False, False), (True, False), (False, True)])
def test_a_product_is_computed_in_its_storage_order(batch, left, right):
    product = Product(4, 5, 6, batch, left=left, right=right)
    a, b = stored_shapes(product)
    assert a[-2:] == ((5, 4) if left else (4, 5)) and b[-2:] == ((6, 5) if right else (5, 6))
    assert with_jax(product, "float32")().shape == ((3,) if batch > 1 else ()) + (4, 6)


def test_limits_follow_from_the_times():
    large, small = Product(1000, 100, 100, count=2), Product(1, 10, 10)
    seconds = {"jax": [0.5, 1e-9], "torch": [0.25, 1e-9]}
    result = limits([large, small], seconds)
    assert result["own"] == {"jax": 1.0 + 1e-9, "torch": 0.5 + 1e-9}
    assert result["rate"] == 2e7 / 0.25, "a small product says nothing about the cores"
    assert result["cores"] == (4e7 + 200) / 8e7
    assert "cores" not in limits([large], {})
