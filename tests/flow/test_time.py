"""Distributions of training times, and the grids that sampling visits."""

import jax
import numpy as np
import pytest

from pinxit.flow.time import TimeSampling, diffusers_sigmas, shift_time, time_grid

GOLDEN_SIGMAS = {
    (1, 1.0): [1.0, 0.0],
    (4, 1.0): [1.0, 0.6669999957, 0.3339999914, 0.0010000000475, 0.0],
    (5, 3.0): [1.0, 0.9003590941, 0.7511211038, 0.5029850602, 0.0089285718, 0.0],
    (3, 0.5): [1.0, 0.3335556984, 0.00025018764, 0.0],
}
"""(steps, shift) to the `sigmas` of diffusers' scheduler."""


def quantiles(sampling):
    samples = sampling.sample(jax.random.key(0), (20_000,))
    return np.quantile(samples, [0.1, 0.5, 0.9])


def test_logit_normal_times_have_the_distribution_of_their_formula():
    z = 1.2815515655446004  # the normal's 90 % quantile
    expected = 1 / (1 + np.exp(-(0.5 + 0.8 * np.array([-z, 0.0, z]))))
    actual = quantiles(TimeSampling("logit_normal", mean=0.5, std=0.8))
    np.testing.assert_allclose(actual, expected, atol=0.01)


def test_uniform_times_are_uniform_and_shift_moves_them_towards_noise():
    np.testing.assert_allclose(quantiles(TimeSampling("uniform")), [0.1, 0.5, 0.9], atol=0.01)
    shifted = quantiles(TimeSampling("uniform", shift=3.0))
    np.testing.assert_allclose(shifted, shift_time(np.array([0.1, 0.5, 0.9]), 3.0), atol=0.01)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"std": 0.0}, "std.*0.0.*above 0"),
        ({"shift": -1.0}, "shift.*-1.0.*above 0"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        TimeSampling(**fields)


def test_an_unknown_distribution_is_named_with_the_known_ones():
    sampling = TimeSampling()
    object.__setattr__(sampling, "distribution", "uniforn")  # as where types are not checked
    with pytest.raises(ValueError, match="unknown 'uniforn'; known: logit_normal, uniform"):
        sampling.__post_init__()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_grid_falls_from_one_to_zero(shift):
    grid = time_grid(7, shift=shift)
    assert grid.shape == (8,)
    assert grid[0] == 1
    assert grid[-1] == 0
    assert np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid, shift_time(np.linspace(1, 0, 8), shift), atol=1e-7)


@pytest.mark.parametrize("make", [time_grid, diffusers_sigmas])
def test_no_steps_is_an_error(make):
    with pytest.raises(ValueError, match="steps: 0 is not valid; it must be at least 1"):
        make(0)
    with pytest.raises(ValueError, match=r"shift: 0\.0 is not valid"):
        make(3, shift=0.0)


@pytest.mark.parametrize(("steps", "shift"), GOLDEN_SIGMAS)
def test_the_grid_of_diffusers_is_reproduced(steps, shift):
    expected = np.array(GOLDEN_SIGMAS[steps, shift], np.float32)
    np.testing.assert_allclose(diffusers_sigmas(steps, shift=shift), expected, rtol=1e-6)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shift", [0.5, 1.0, 1.7, 3.0, 6.0])
def test_the_grid_equals_the_scheduler_of_diffusers(shift):
    diffusers = pytest.importorskip("diffusers")
    for steps in (1, 2, 3, 5, 10, 28, 50, 1000):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(steps)
        ours = diffusers_sigmas(steps, shift=shift)
        np.testing.assert_allclose(ours, scheduler.sigmas.numpy(), atol=1e-7)
