"""Schedules, decay masks, and which optimiser takes what."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest

from pinxit.models.transformer import init_params, preset
from pinxit.train.muon import scale_by_muon
from pinxit.train.optimizer import (
    OptimizerConfig,
    build_optimizer,
    build_schedule,
    decay_start,
    decayed,
)
from pinxit.train.resume_policy import CHANGEABLE, SettingChange


def test_schedules():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_fraction=0.1)
    cosine = build_schedule(config, 100)
    assert [round(float(cosine(i)), 3) for i in (0, 1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert float(cosine(100)) == pytest.approx(0.1)
    linear = build_schedule(OptimizerConfig(schedule="linear", warmup_steps=0), 10)
    assert float(linear(5)) == pytest.approx(5e-4)
    constant = build_schedule(OptimizerConfig(schedule="constant", warmup_steps=0), 10)
    assert float(constant(9)) == pytest.approx(1e-3)


def test_wsd_is_constant_then_falls_by_one_minus_sqrt():
    config = OptimizerConfig(
        learning_rate=1.0, schedule="wsd", warmup_steps=4, decay_steps=16, final_fraction=0.1
    )
    assert decay_start(config, 100) == 84
    rate = build_schedule(config, 100)
    assert [round(float(rate(i)), 3) for i in (0, 3, 4, 50, 84)] == [0.25, 1.0, 1.0, 1.0, 1.0]
    for step in (85, 88, 99, 100, 200):
        progress = min(1.0, (step - 84) / 16)
        assert float(rate(step)) == pytest.approx(0.9 * (1 - progress**0.5) + 0.1)
    longer = build_schedule(config, 1000)
    assert all(float(rate(i)) == float(longer(i)) for i in range(85)), "the trunk is the same"
    assert decay_start(replace(config, decay_steps=None), 100) == 80
    assert decay_start(replace(config, decay_steps=500), 100) == 4, "not before the warm-up ends"
    assert decay_start(replace(config, schedule="cosine"), 100) is None


def test_a_changed_warmup_begins_at_the_change():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10)
    plain = build_schedule(config, 1000)
    change = SettingChange(510, 500, "optimizer.warmup_steps", 10, 50)
    rate = build_schedule(replace(config, warmup_steps=50), 1000, [change])
    for count in (0, 3, 9, 300, 499):
        assert float(rate(count)) == float(plain(count)), "before the change"
    for count in (500, 520, 549, 550, 900):
        risen = min(1.0, (count - 499) / 50)
        assert float(rate(count)) == pytest.approx(risen * float(plain(count)))
    twice = [change, SettingChange(900, 880, "optimizer.warmup_steps", 50, 0)]
    none = build_schedule(replace(config, warmup_steps=0), 1000, twice)
    assert float(none(880)) == pytest.approx(float(plain(880)))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_the_name_decides_the_states_structure(name: str):
    params = init_params(preset("debug"), jax.random.key(0))

    def structure(**settings: Any) -> Any:
        config = OptimizerConfig(name=name, **settings)
        optimizer = build_optimizer(config, 100, num_heads=2)
        return jax.tree.structure(jax.eval_shape(optimizer.init, params))

    settings: dict[str, Any] = {
        "learning_rate": 1.0,
        "warmup_steps": 0,
        "schedule": "constant",
        "decay_steps": 9,
        "final_fraction": 0.5,
        "clip_norm": None,
        "weight_decay": 0.0,
        "b1": 0.0,
        "b2": 0.0,
        "eps": 1.0,
        "momentum": 0.0,
    }
    names = [n.removeprefix("optimizer.") for n in CHANGEABLE if n.startswith("optimizer.")]
    assert set(names) == set(settings)
    for setting, value in settings.items():
        assert structure(**{setting: value}) == structure(), setting


def test_only_matrices_decay():
    mask = decayed(init_params(preset("debug"), jax.random.key(0)))
    assert mask["blocks"]["mlp"]["up"]["kernel"] and mask["image_in"]["kernel"]
    assert not mask["blocks"]["attention"]["key_norm"]["scale"]
    assert not mask["blocks"]["modulation"]["table"] and not mask["image_in"]["bias"]
    whole = decayed(init_params(preset("debug", modulation="per_block"), jax.random.key(0)))
    assert whole["blocks"]["modulation"] == {"kernel": True, "bias": False}


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
