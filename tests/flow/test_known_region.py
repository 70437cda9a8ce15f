"""Inpainting: the known region stays on its path with every solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.flow.known_region import known_motion, latent_mask, with_known_region
from pinxit.flow.path import interpolate
from pinxit.flow.solvers import SOLVERS, get_solver
from pinxit.flow.time import diffusers_sigmas, time_grid

SHAPE = (2, 4, 4, 3)
LATENTS, NOISE = (jax.random.normal(jax.random.key(i), SHAPE) for i in range(2))
MASK = jnp.zeros((2, 4, 4, 1)).at[:, :2].set(1.0)
NOTHING = Conditioning(tokens=np.zeros((2, 1, 1), np.float32), mask=np.ones((2, 1), bool))
GRIDS = {
    "even": time_grid(9, shift=3.0),
    "part": time_grid(9)[4:],
    "one step": time_grid(9)[-2:],
    "diffusers": diffusers_sigmas(9),
}


def wild(x_t, t, conditioning):
    """A velocity that leads away from the path."""
    return 5 * jnp.sin(3 * x_t) + t[:, None, None, None] - 2


@pytest.mark.parametrize("times", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_known_region_stays_on_its_path_and_ends_in_the_latents(solver, times):
    seen = []

    def watched(x_t, t, conditioning):
        jax.debug.callback(lambda x, t: seen.append((np.array(x), float(t[0]))), x_t, t)
        return wild(x_t, t, conditioning)

    start = interpolate(LATENTS, NOISE, jnp.full(2, times[0]))
    motion = known_motion(LATENTS, NOISE, MASK)
    velocity_fn = with_known_region(watched, motion, MASK)
    end = get_solver(solver)(velocity_fn, start, times, NOTHING)
    jax.effects_barrier()
    np.testing.assert_allclose(end[:, 2:], LATENTS[:, 2:], rtol=0, atol=3e-6)
    assert len(seen) >= len(times) - 1
    for x_t, t in seen:
        expected = interpolate(LATENTS, NOISE, jnp.full(2, t, jnp.float32))
        np.testing.assert_allclose(x_t[:, 2:], expected[:, 2:], rtol=0, atol=3e-6)
    plain = get_solver(solver)(wild, start, times, NOTHING)
    np.testing.assert_allclose(end[:, :2], plain[:, :2], rtol=1e-4, atol=1e-4)
    assert np.abs(plain[:, 2:] - LATENTS[:, 2:]).max() > 0.1


def test_a_soft_mask_mixes_both_velocities():
    x_t, t = LATENTS + 1, jnp.full(2, 0.5)
    soft = jnp.full_like(MASK, 0.25)
    motion = known_motion(LATENTS, NOISE, soft)
    mixed = with_known_region(wild, motion, soft)(x_t, t, NOTHING)
    expected = 0.25 * wild(x_t, t, NOTHING) + 0.75 * (NOISE - LATENTS)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)


def test_the_mask_of_the_latents_is_the_mean_over_each_cell():
    mask = np.zeros((4, 6), np.float32)
    mask[:2, :3] = 1
    np.testing.assert_array_equal(latent_mask(mask, 2)[..., 0], [[1, 0.5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(latent_mask(mask, 1)[..., 0], mask)
