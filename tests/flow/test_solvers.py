"""Solvers against exact answers: on Gaussian data the velocity is known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.flow.solvers import SOLVERS, get_solver
from pinxit.flow.time import time_grid

ORDERS = {"euler": 1, "heun": 2, "midpoint": 2, "dpmpp_2m": 2}
EVALUATIONS = {"euler": 5, "heun": 9, "midpoint": 10, "dpmpp_2m": 5}
"""Evaluations of the velocity in five steps, as the docstrings of the solvers state."""
MEAN = np.array([0.7, -0.4])
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def conditioning(batch):
    return Conditioning(tokens=jnp.zeros((batch, 1, 1)), mask=jnp.ones((batch, 1), bool))


def gaussian_velocity(x_t, t, conditioning):
    """E[noise - latents | x_t] for latents ~ N(MEAN, COVARIANCE), along the two channels."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    t = t[:, None, None, None]
    coordinates = (x_t - (1 - t) * jnp.asarray(MEAN, x_t.dtype)[None, None, None]) @ vectors
    variances = jnp.asarray(values, x_t.dtype)[None, None, None]
    total = (1 - t) ** 2 * variances + t**2
    velocity = coordinates * (t - (1 - t) * variances) / total
    return velocity @ vectors.T - jnp.asarray(MEAN, x_t.dtype)[None, None, None]


def curved_velocity(x, t, conditioning):
    """A smooth field without symmetry, nonlinear in x."""
    t = t[:, None, None, None]
    return jnp.sin(2 * x + 3 * t) + t * x


def solve(name, velocity_fn, x, times):
    solver = jax.jit(get_solver(name), static_argnums=0)
    return solver(velocity_fn, x, times, conditioning(x.shape[0]))


@pytest.mark.parametrize("name", SOLVERS)
def test_sampling_recovers_mean_and_covariance(name):
    noise = jax.random.normal(jax.random.key(0), (4000, 2, 2, 2))
    steps = {"euler": 200}.get(name, 40)
    samples = solve(name, gaussian_velocity, noise, time_grid(steps)).reshape(-1, 2)
    np.testing.assert_allclose(samples.mean(0), MEAN, atol=0.02)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, atol=0.02)


def observed_orders(name, velocity_fn, grids, x, truth):
    errors = [
        float(jnp.sqrt(jnp.mean((solve(name, velocity_fn, x, grid) - truth) ** 2)))
        for grid in grids
    ]
    return [float(np.log2(coarse / fine)) for coarse, fine in itertools.pairwise(errors)]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_error_falls_at_the_expected_order(name):
    x = jax.random.normal(jax.random.key(1), (8, 2, 2, 2))
    truth = solve("midpoint", curved_velocity, x, np.linspace(0.9, 0.1, 2001))
    grids = [np.linspace(0.9, 0.1, steps + 1) for steps in (16, 32, 64)]
    orders = observed_orders(name, curved_velocity, grids, x, truth)
    print(name, orders)
    assert all(abs(order - ORDERS[name]) < 0.25 for order in orders), orders


@pytest.mark.parametrize("name", SOLVERS)
def test_the_order_holds_over_the_whole_of_time(name):
    """Up to a logarithm for dpmpp_2m, whose log-ratio is infinite at both ends."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    x = jax.random.normal(jax.random.key(1), (8, 2, 2, 2))
    truth = MEAN + np.asarray(x) @ vectors @ np.diag(np.sqrt(values)) @ vectors.T
    coarsest = {"midpoint": 8, "dpmpp_2m": 64}.get(name, 32)
    grids = [time_grid(coarsest * factor) for factor in (1, 2, 4)]
    orders = observed_orders(name, gaussian_velocity, grids, x, truth)
    print(name, orders)
    assert all(order > ORDERS[name] - 0.4 for order in orders), orders


@pytest.mark.parametrize("name", SOLVERS)
def test_a_constant_velocity_is_followed_exactly(name):
    x = jax.random.normal(jax.random.key(2), (3, 2, 2, 1))
    end = solve(name, lambda x, t, c: jnp.full_like(x, 2.0), x, time_grid(5, shift=3.0))
    np.testing.assert_allclose(end, x - 2.0, atol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_evaluations_are_counted_as_stated(name):
    calls = []

    def velocity(x, t, conditioning):
        jax.debug.callback(lambda t: calls.append(float(t[0])), t)
        return -x

    solve(name, velocity, jnp.ones((2, 2, 2, 1)), time_grid(5))
    jax.effects_barrier()
    assert len(calls) == EVALUATIONS[name]
    assert max(calls) == 1
    assert min(calls) > 0


def test_an_unknown_solver_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown 'eular'; known: euler, heun, midpoint, dpmpp_2m"):
        get_solver("eular")
