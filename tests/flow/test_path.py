"""The path: its ends, and conversions that undo one another."""

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.flow.path import interpolate, velocity


def draw(shape=(5, 4, 2, 3)):
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], shape), jax.random.normal(keys[1], shape)


def test_time_zero_is_data_and_time_one_is_noise():
    latents, noise = draw()
    np.testing.assert_array_equal(interpolate(latents, noise, jnp.zeros(5)), latents)
    np.testing.assert_array_equal(interpolate(latents, noise, jnp.ones(5)), noise)


def test_velocity_is_the_derivative_of_the_path():
    latents, noise = draw()
    t = jnp.linspace(0.1, 0.9, 5)
    _, tangent = jax.jvp(lambda t: interpolate(latents, noise, t), (t,), (jnp.ones(5),))
    np.testing.assert_allclose(tangent, velocity(latents, noise), atol=1e-6)


def test_latents_and_noise_come_back_from_the_velocity():
    latents, noise = draw()
    t = jnp.linspace(0.0, 1.0, 5)
    x_t, v = interpolate(latents, noise, t), velocity(latents, noise)
    t = t[:, None, None, None]
    np.testing.assert_allclose(x_t - t * v, latents, atol=1e-6)
    np.testing.assert_allclose(x_t + (1 - t) * v, noise, atol=1e-6)
