"""Operations are counted as often as they run."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pinxit.devices.flops import count, count_by_dtype


def traced(f, *shapes) -> float:
    return count(jax.jit(f).trace(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).jaxpr)


def test_products_loops_and_gradients():
    assert traced(jnp.matmul, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert traced(lambda a, b: jnp.einsum("bik,bkj->bij", a, b), (2, 3, 4), (2, 4, 5)) == 240

    def loop(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    once = 2 * 3 * 4 * 4
    assert traced(loop, (7, 4, 4), (3, 4)) == 7 * once
    # backward: one product for the weights, one for the input
    assert traced(jax.grad(loop), (7, 4, 4), (3, 4)) == 3 * 7 * once

    def twice(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def kept(w, x):
        return jax.lax.scan(lambda x, w: (twice(x, w), None), x, w)[0].sum()

    def recomputed(w, x):
        step = jax.checkpoint(twice)
        return jax.lax.scan(lambda x, w: (step(x, w), None), x, w)[0].sum()

    assert traced(jax.grad(kept), (7, 4, 4), (3, 4)) == 6 * 7 * once
    # the products themselves, or all but the last of a block, which nothing needs again
    again = traced(jax.grad(recomputed), (7, 4, 4), (3, 4)) - 6 * 7 * once
    assert again in (7 * once, 2 * 7 * once)


def test_convolutions():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert traced(convolve, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * 2 * 64 * 5 * 27


def test_products_are_told_apart_by_their_dtype():
    half, single = (jax.ShapeDtypeStruct((4, 4), dtype) for dtype in (jnp.float16, jnp.float32))

    def mixed(a, b):
        encoded = jax.lax.scan(lambda x, _: (x @ b, None), b, None, length=3)[0]
        return jax.lax.cond(a.sum() > 0, lambda: a @ a, lambda: a @ a @ a), encoded

    once = 2 * 4 * 4 * 4
    counts = count_by_dtype(jax.make_jaxpr(mixed)(half, single))
    assert counts == {"float16": 2 * once, "float32": 3 * once}
    assert sum(counts.values()) == count(jax.make_jaxpr(mixed)(half, single))
