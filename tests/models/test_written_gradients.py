"""Norms, gate, gated sum, products and row reductions equal plain formulas and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.models.gating import gated_product
from pinxit.models.norms import EPSILON, gated_sum, modulated_norm, rms_norm
from pinxit.models.products import product, turned_product
from pinxit.models.row_reductions import row_max, row_mean, row_sum
from pinxit.models.transposing import heads_first


def draw(*shapes, dtype=jnp.float32, spread=1.0):
    rng = np.random.default_rng(len(shapes))
    return [jnp.asarray(spread * rng.normal(size=shape) + 0.3, dtype) for shape in shapes]


def plain_rms(x, scale):
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPSILON) * scale[None, None, None]


def plain_modulated(x, shift, scale):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normal = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)
    return normal * (1 + scale)[:, None] + shift[:, None]


CASES = {
    "rms_norm": (rms_norm, plain_rms, [(2, 3, 4, 40), (40,)]),
    "modulated_norm": (modulated_norm, plain_modulated, [(2, 5, 37), (2, 37), (2, 37)]),
    "gated_product": (
        gated_product,
        lambda gate, up, kernel: (jax.nn.gelu(gate) * up) @ kernel,
        [(2, 4, 33), (2, 4, 33), (33, 6)],
    ),
    "gated_sum": (
        gated_sum,
        lambda x, gate, y: x + gate[:, None] * y,
        [(2, 5, 12), (2, 12), (2, 5, 12)],
    ),
    "product": (product, lambda x, kernel: x @ kernel, [(3, 6, 10), (10, 7)]),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_plain_formula(name):
    function, plain, shapes = CASES[name]
    arrays = draw(*shapes)

    def energy(function):
        return lambda *arrays: jnp.sum(jnp.sin(function(*arrays)))

    np.testing.assert_allclose(function(*arrays), plain(*arrays), rtol=2e-5, atol=2e-6)
    every = tuple(range(len(arrays)))
    found = jax.jit(jax.grad(energy(function), argnums=every))(*arrays)
    expected = jax.grad(energy(plain), argnums=every)(*arrays)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_near_fp32_in_values_and_gradients(name):
    function, plain, shapes = CASES[name]
    wide = draw(*shapes, spread=0.5)
    parameters = {"rms_norm": [1], "product": [1], "gated_product": [2]}.get(name, [])
    narrow = [x if i in parameters else x.astype(jnp.bfloat16) for i, x in enumerate(wide)]
    output, pull = jax.vjp(function, *narrow)
    reference, pull_wide = jax.vjp(plain, *wide)
    assert output.dtype == jnp.bfloat16
    pairs = [(output, reference)]
    gradients = pull(output)
    assert [x.dtype for x in gradients] == [x.dtype for x in narrow]
    pairs += zip(gradients, pull_wide(reference), strict=True)
    for ours, theirs in pairs:
        error = jnp.max(jnp.abs(ours.astype(jnp.float32) - theirs)) / jnp.max(jnp.abs(theirs))
        assert error < 0.03


def stored(function, *arrays):
    """The shapes of what the backward pass stores, besides the arguments."""
    _, pull = jax.vjp(function, *arrays)
    known = {id(array) for array in arrays}
    return [leaf.shape for leaf in jax.tree.leaves(pull) if id(leaf) not in known and leaf.ndim]


def test_products_of_one_array_store_it_once():
    x, first, second = draw((2, 5, 8), (8, 6), (8, 6))

    def both(x, first, second):
        inner = jnp.sin(x)
        return jnp.sum(product(inner, first)) + jnp.sum(product(inner, second))

    assert stored(both, x, first, second).count((2, 5, 8)) == 2, "the cosine, and the sine once"


def test_the_gated_product_stores_its_inputs_alone():
    gate, up, kernel = draw((2, 5, 8), (2, 5, 8), (8, 6))
    assert stored(lambda *arrays: jnp.sum(gated_product(*arrays)), gate, up, kernel) == []


@pytest.mark.parametrize("outputs", [2, 3, 9])
@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_turned_product_sums_over_rows(rows, dtype, outputs):
    """Two outputs are few enough to transpose the second factor and the result."""
    a, b = draw((2, rows, 5), (2, rows, outputs), dtype=dtype)
    found = turned_product(a, b)
    assert found.dtype == jnp.float32
    wide = [np.asarray(x, np.float32) for x in (a, b)]
    np.testing.assert_allclose(found, np.swapaxes(wide[0], 1, 2) @ wide[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_heads_are_swapped_with_tokens_and_so_is_the_gradient(dtype):
    (x,) = draw((2, 5, 3, 4), dtype=dtype)
    output, pull = jax.vjp(heads_first, x)
    np.testing.assert_array_equal(output, jnp.swapaxes(x, 1, 2))
    np.testing.assert_array_equal(pull(output)[0], x)


def test_the_compiler_does_not_keep_what_is_computed_again():
    """A gated MLP that is not in a loop stores its two inputs on a CPU, and its kernels' copies."""
    rows, width, features = 64, 32, 2048

    def temporary(depth):
        def loss(x, gates, ups, downs):
            for i in range(depth):
                x = x + gated_product(x @ gates[i], x @ ups[i], downs[i])
            return jnp.sum(jnp.square(x))

        into, out = (depth, width, features), (depth, features, width)
        shapes = [
            jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((rows, width), into, into, out)
        ]
        compiled = jax.jit(jax.grad(loss)).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    each = (temporary(6) - temporary(4)) / 2
    inputs, kernels = 2 * rows * features * 4, 3 * width * features * 4
    assert each < 1.1 * (inputs + kernels)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_no_barrier_puts_arrays_into_the_memory_of_an_accelerator(platform):
    """One around an argument in fp32 took 2.5 GiB of a TPU core in the recipe `coyo_256`."""
    gate, up, kernel = (jax.ShapeDtypeStruct((8, 8), jnp.bfloat16) for _ in range(3))
    traced = jax.jit(jax.grad(lambda *x: jnp.sum(gated_product(*x)))).trace(gate, up, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "tanh" in text and "optimization_barrier" not in text


@pytest.mark.parametrize("width", [1, 2, 16, 17, 24, 31, 33, 80, 333, 384])
def test_rows_are_reduced_at_every_width(width):
    (x,) = draw((3, 2, width))
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(row_sum(x), wide.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(row_mean(x), wide.mean(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(row_max(x), np.asarray(x).max(-1, keepdims=True))


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_the_form_is_chosen_for_the_platform_that_is_compiled_for(platform):
    """Folded halves and turned factors are for CPUs; others get one reduction and one product."""
    x, kernel = draw((6, 40), (40, 10), dtype=jnp.bfloat16)

    def text(function, *arrays):
        return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()

    assert ("stablehlo.slice" in text(row_max, x)) == (platform == "cpu")
    assert ("stablehlo.transpose" in text(turned_product, x, kernel[:6])) == (platform == "cpu")
    rounded = "xf32>" in text(lambda x, w: product(x, w), x, kernel)
    assert rounded == (platform == "cpu")


@pytest.mark.parametrize("function", [product, lambda x, kernel: gated_product(x, x, kernel)])
@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_gradients_keep_the_axes_of_samples_and_tokens_apart_only_on_a_tpu(platform, function):
    """By the compilers, a v3-8 takes 6 % more time with joined ones, an A100 more memory apart."""
    x, kernel, change = draw((2, 3, 40), (40, 10), (2, 3, 10), dtype=jnp.bfloat16)

    def text(program, *arrays):
        return jax.jit(program).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()

    def gradients(x, kernel, change):
        return jax.vjp(function, x, kernel)[1](change)

    both = text(gradients, x, kernel, change)
    assert ("tensor<6x10x" in both) == (platform != "tpu")
    assert ("contracting_dims = [0, 1] x [0, 1]" in both) == (platform == "tpu")


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_every_platform_joins_the_axes_in_the_forward_pass(platform):
    """Apart, a step of 4,096 images on a v3-8 took 6 % more memory by its compiler."""
    x, kernel = draw((2, 3, 40), (40, 10), dtype=jnp.bfloat16)
    traced = jax.jit(lambda x, kernel: product(x, kernel)).trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "(tensor<6x40xbf16>, tensor<40x10xbf16>)" in text


def test_rows_of_other_values_than_numbers_show_in_the_sum():
    (x,) = draw((2, 48))
    broken = x.at[0, 5].set(jnp.nan).at[1, 40].set(jnp.inf)
    assert jnp.isnan(row_sum(broken)[0, 0]) and jnp.isinf(row_sum(broken)[1, 0])
    assert jnp.isinf(row_max(broken)[1, 0])
