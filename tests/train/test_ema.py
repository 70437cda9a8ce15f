"""Averages against their definition."""

import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.train.ema import EmaConfig, init_ema, power_exponent, update_ema


def test_power_exponent_solves_its_equation():
    for sigma in (0.05, 0.1, 0.2):
        g = power_exponent(sigma)
        assert (g + 1) / ((g + 2) ** 2 * (g + 3)) == pytest.approx(sigma**2, rel=1e-6)


def test_power_average_weighs_steps_by_a_power():
    config = EmaConfig(lengths=(0.1,))
    ema = init_ema(config, {"w": jnp.zeros(2)})
    values = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    for s, value in enumerate(values, start=1):
        ema = update_ema(config, ema, {"w": jnp.asarray(value)}, step=jnp.asarray(s))
    gamma = power_exponent(0.1)
    steps = np.arange(0, 31) / 30
    weights = np.diff(steps ** (gamma + 1))
    np.testing.assert_allclose(ema["ema_0.1"]["w"], weights @ values, atol=1e-5)


def test_fixed_decay_begins_at_the_first_parameters():
    config = EmaConfig(kind="decay", lengths=(0.9,))
    ema = init_ema(config, {"w": jnp.zeros(())})
    ema = update_ema(config, ema, {"w": jnp.asarray(3.0)}, step=jnp.asarray(1))
    assert float(ema["ema_0.9"]["w"]) == 3.0
    ema = update_ema(config, ema, {"w": jnp.asarray(0.0)}, step=jnp.asarray(1000))
    assert float(ema["ema_0.9"]["w"]) == pytest.approx(2.7)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"ema\.lengths"):
        EmaConfig(lengths=(0.5,))
    with pytest.raises(ValueError, match="twice"):
        EmaConfig(lengths=(0.1, 0.1))
