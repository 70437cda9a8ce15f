"""Schedules, decay masks, and which optimiser takes what."""

import jax
import numpy as np
import optax
import pytest

from pinxit.models.transformer import init_params, preset
from pinxit.train.muon import scale_by_muon
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


def test_muon_takes_the_matrices_of_the_blocks_and_adam_the_rest():
    params = init_params(preset("debug"), jax.random.key(0))
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
    config = OptimizerConfig(name="muon", weight_decay=0.0, warmup_steps=0, clip_norm=None)
    optimizer = build_optimizer(config, 100, num_heads=2)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    adam = optax.adam(config.learning_rate, b1=config.b1, b2=config.b2, eps=config.eps)
    by_adam, _ = adam.update(grads, adam.init(params))
    muon = scale_by_muon(config.momentum, num_heads=2)
    for part in ("attention", "mlp"):
        kernels = {
            name: layer["kernel"]
            for name, layer in grads["blocks"][part].items()
            if "kernel" in layer
        }
        nested = {name: {"kernel": kernel} for name, kernel in kernels.items()}
        directions, _ = muon.update(nested, muon.init(nested))
        for name in kernels:
            found = updates["blocks"][part].pop(name)["kernel"]
            expected = -config.learning_rate * directions[name]["kernel"]
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
            del by_adam["blocks"][part][name]
    assert set(updates["blocks"]["attention"]) == {"query_norm", "key_norm", "text_key_norm"}
    jax.tree.map(lambda u, a: np.testing.assert_allclose(u, a, atol=1e-6), updates, by_adam)


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
