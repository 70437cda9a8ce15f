"""Convolutions with fewer multiplications give what the direct ones give."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.encoders import winograd


def random(*shape: int) -> jax.Array:
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return jnp.asarray(values.astype(np.float32))


def operands(x: jax.Array, after: int = 5) -> tuple[jax.Array, ...]:
    return x, random(3, 3, x.shape[-1], after), random(after)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("strip", [1, 40, 10**6])
@pytest.mark.parametrize("size", [(1, 8, 6), (2, 7, 5), (3, 1, 1), (1, 2, 9)])
def test_it_is_the_direct_convolution(monkeypatch, size, strip, double):
    """Even and odd sides, one strip and many, batches."""
    monkeypatch.setattr(winograd, "STRIP", strip)
    given = operands(random(*size, 3))
    expected = winograd._direct(*given, double=double)
    ours = jax.jit(partial(winograd._winograd, double=double))(*given)
    assert ours.shape == expected.shape
    assert expected.shape[1] == size[1] * (2 if double else 1)
    np.testing.assert_allclose(ours, expected, atol=2e-6 * float(np.abs(expected).max()))


@pytest.mark.parametrize("double", [False, True])
def test_wide_float32_convolutions_on_cpus_take_it(monkeypatch, double):
    taken = []

    def recorded(*operands, double):
        taken.append(operands[0].dtype)
        return winograd._direct(*operands, double=double)

    monkeypatch.setattr(winograd, "_winograd", recorded)
    wide, narrow = operands(random(1, 4, 4, 128), 128), operands(random(1, 4, 4, 128), 127)
    winograd.conv3x3(*narrow, double=double)
    winograd.conv3x3(*(x.astype(jnp.bfloat16) for x in wide), double=double)
    assert taken == []
    winograd.conv3x3(*wide, double=double)
    assert taken == [jnp.float32]


def test_other_devices_take_the_direct_one():
    given = operands(random(1, 4, 4, 128), 128)
    lowered = {
        platform: jax.jit(winograd.conv3x3).trace(*given).lower(lowering_platforms=(platform,))
        for platform in ("cpu", "tpu", "cuda")
    }
    convolutions = {name: low.as_text().count("convolution") for name, low in lowered.items()}
    assert convolutions["cpu"] == 0
    assert convolutions["tpu"] == convolutions["cuda"] > 0


def test_gradients_are_those_of_the_direct_one():
    given = operands(random(1, 4, 6, 3))

    def loss(function, *given):
        return jnp.sin(function(*given, double=False)).sum()

    ours, expected = (
        jax.jit(jax.grad(partial(loss, function), argnums=(0, 1, 2)))(*given)
        for function in (winograd._winograd, winograd._direct)
    )
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))


def test_a_networks_convolutions_share_their_memory():
    """They did not: XLA made all outputs from the same zeros, and so kept each one's."""
    side, channels = 48, 128

    def temporary_bytes(depth: int) -> int:
        def network(x: jax.Array, kernels: list[jax.Array], bias: jax.Array) -> jax.Array:
            for kernel in kernels:
                x = jnp.tanh(winograd._winograd(x, kernel, bias, double=False))
            return x

        shapes = ((1, side, side, channels), *[(3, 3, channels, channels)] * depth, (channels,))
        x, *kernels, bias = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        compiled = jax.jit(network).lower(x, kernels, bias).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(6) < 1.1 * temporary_bytes(1)
