"""Schedules, decay masks, and Muon on stacked kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from pinxit.models.transformer import init_params, preset
from pinxit.train.optimizer import OptimizerConfig, build_optimizer, build_schedule, decayed


def test_schedules():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_fraction=0.1)
    cosine = build_schedule(config, 100)
    assert [round(float(cosine(i)), 3) for i in (0, 1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert float(cosine(100)) == pytest.approx(0.1)
    linear = build_schedule(OptimizerConfig(schedule="linear", warmup_steps=0), 10)
    assert float(linear(5)) == pytest.approx(5e-4)
    constant = build_schedule(OptimizerConfig(schedule="constant", warmup_steps=0), 10)
    assert float(constant(9)) == pytest.approx(1e-3)


def test_only_matrices_decay():
    mask = decayed(init_params(preset("debug"), jax.random.key(0)))
    assert mask["blocks"]["mlp"]["up"]["kernel"] and mask["image_in"]["kernel"]
    assert not mask["blocks"]["attention"]["key_norm"]["scale"]
    assert not mask["blocks"]["modulation"]["table"] and not mask["image_in"]["bias"]


def test_muon_treats_each_stacked_layer_by_itself():
    key = jax.random.key(0)
    params = {"blocks": {"kernel": jax.random.normal(key, (3, 8, 4)), "scale": jnp.ones((3, 8))}}
    grads = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)
    config = OptimizerConfig(name="muon", weight_decay=0.0, warmup_steps=0, clip_norm=None)
    optimizer = build_optimizer(config, 100)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    matrix = {"kernel": contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=1)}
    single = contrib.scale_by_muon(beta=config.momentum, weight_dimension_numbers=matrix)
    for layer in range(3):
        one = {"kernel": grads["blocks"]["kernel"][layer]}
        direction, _ = single.update(one, single.init(one))
        expected = -config.learning_rate * 0.2 * 8**0.5 * direction["kernel"]
        np.testing.assert_allclose(updates["blocks"]["kernel"][layer], expected, atol=1e-6)
    adam = optax.adam(config.learning_rate, b1=config.b1, b2=config.b2)
    scale = {"scale": grads["blocks"]["scale"]}
    expected, _ = adam.update(scale, adam.init(scale))
    np.testing.assert_allclose(updates["blocks"]["scale"], expected["scale"], rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("learning_rate", 0.0, "learning_rate"),
        ("b2", 1.0, "b2"),
        ("weight_decay", -1.0, "weight_decay"),
        ("clip_norm", 0.0, "clip_norm"),
    ],
)
def test_wrong_settings_are_named(field: str, value: object, says: str):
    with pytest.raises(ValueError, match=says):
        OptimizerConfig(**{field: value})
