"""Muon: layer by layer, head by head, near the orthogonal factor of the momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.train.muon import LOWEST, POLYNOMIALS, scale_by_muon


def polar(matrix: np.ndarray) -> np.ndarray:
    """``U V^T`` of ``U S V^T``."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


def direction(kernel: jax.Array, *, layer: str = "gate", heads: int = 1) -> np.ndarray:
    """Of the first step, whose momentum is the gradient."""
    grads = {"blocks": {layer: {"kernel": kernel}}}
    muon = scale_by_muon(0.9, num_heads=heads)
    return np.asarray(muon.update(grads, muon.init(grads))[0]["blocks"][layer]["kernel"])


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (20, 8)])
def test_the_direction_is_nearly_orthogonal_and_as_large_as_adams(shape: tuple[int, int]):
    kernel = jax.random.normal(jax.random.key(0), (3, *shape))
    found = direction(kernel)
    for layer in range(3):
        expected = polar(np.asarray(kernel[layer]))
        cosine = np.sum(found[layer] * expected) / np.linalg.norm(found[layer])
        assert cosine / np.linalg.norm(expected) > 0.95
        values = np.linalg.svd(found[layer], compute_uv=False) / (0.2 * max(shape) ** 0.5)
        assert values.max() < 1.28 and values.min() > 0.6
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("layer", ["query", "key", "value", "text_key", "text_value"])
def test_kernels_into_heads_move_head_by_head(layer: str):
    kernel = jax.random.normal(jax.random.key(1), (2, 12, 3 * 4))
    found = direction(kernel, layer=layer, heads=3)
    heads = [direction(head) for head in jnp.split(kernel, 3, axis=-1)]
    np.testing.assert_allclose(found, np.concatenate(heads, axis=-1), atol=1e-6)
    whole = direction(kernel, layer=layer, heads=1)
    assert not np.allclose(found, whole, atol=0.01)
    np.testing.assert_allclose(direction(kernel, layer="out", heads=3), whole, atol=1e-6)


def test_polynomials_bring_the_whole_range_near_to_one():
    x = np.concatenate([np.geomspace(LOWEST, 1, 500), np.linspace(LOWEST, 1, 500)])
    for a, b, c in POLYNOMIALS:
        before = np.max(np.abs(1 - x))
        x = a * x + b * x**3 + c * x**5
        # the nearest to 1 of its degree errs as much on one side as on the other
        assert 1 - x.min() == pytest.approx(x.max() - 1, abs=2e-3)
        assert np.max(np.abs(1 - x)) < before
    assert np.max(np.abs(1 - x)) < 0.28


def test_momentum_is_nesterovs_and_lies_as_its_kernel_does():
    first, second = jax.random.normal(jax.random.key(2), (2, 1, 6, 6))
    muon = scale_by_muon(0.9, num_heads=1)
    state = muon.init({"kernel": first})
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [first.shape]
    _, state = muon.update({"kernel": first}, state)
    found, _ = muon.update({"kernel": second}, state)
    expected = direction(second + 0.9 * (second + 0.9 * first))
    np.testing.assert_allclose(found["kernel"], expected, atol=1e-5)
