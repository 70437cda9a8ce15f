"""A model of a few parameters and its data, for tests of the machinery around a model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.arrays import Batch, Conditioning
from pinxit.data.loader import ArrayRows, Loader
from pinxit.flow.objective import FlowMatching
from pinxit.train.ema import EmaConfig
from pinxit.train.optimizer import OptimizerConfig, build_optimizer
from pinxit.train.state import TrainState, init_state
from pinxit.train.step import StepFn, make_train_step

EMA = EmaConfig(lengths=(0.05, 0.1))


def apply(params: Any, x_t: Any, t: Any, conditioning: Conditioning) -> Any:
    """Two stacked layers and a projection, shifted by time and text."""
    x = x_t
    for layer in range(2):
        x = jnp.tanh(
            x @ params["blocks"]["kernel"][layer]
            + params["blocks"]["bias"][layer][None, None, None]
        )
    text = conditioning.tokens.mean(axis=(1, 2))
    return x @ params["out"]["kernel"] + (t + text)[:, None, None, None]


def params() -> Any:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "blocks": {"kernel": jax.random.normal(keys[0], (2, 4, 4)), "bias": jnp.zeros((2, 4))},
        "out": {"kernel": jax.random.normal(keys[1], (4, 4))},
    }


def encode(frozen: Any, raw: Any) -> Batch:
    tokens = raw["token_ids"][:, :, None] * frozen["scale"]
    conditioning = Conditioning(tokens, jnp.ones(tokens.shape[:2], bool))
    null = Conditioning(jnp.zeros((1, *tokens.shape[1:])), jnp.ones((1, tokens.shape[1]), bool))
    return Batch(raw["latents"], conditioning, raw["index"], null)


FROZEN = {"scale": np.float32(0.01)}


def rows(count: int = 40) -> ArrayRows:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(count, 2, 2, 4)).astype(np.float32)
    token_ids = rng.integers(0, 9, (count, 3)).astype(np.int32)
    return ArrayRows({"latents": latents, "token_ids": token_ids})


def loader(batch_size: int = 8) -> Loader:
    return Loader(rows(), batch_size=batch_size)


def make(
    *, name: str = "adamw", objective: Any = None, max_steps: int = 50, **options: Any
) -> tuple[StepFn, TrainState]:
    """A step and the state before it."""
    config = OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=2)
    optimizer = build_optimizer(config, max_steps, num_heads=1)
    scaling = options.get("loss_scaling")
    state = init_state(params(), optimizer, ema=EMA, loss_scale=scaling.initial if scaling else 1.0)
    step = make_train_step(
        objective or FlowMatching(), apply, optimizer, encode=encode, ema=EMA, **options
    )
    return step, state


def run_steps(step: StepFn, state: TrainState, count: int, batch_size: int = 8) -> Any:
    """State and metrics after `count` steps."""
    metrics: list[Any] = []
    for raw in loader(batch_size).batches(int(state.step), int(state.step) + count):
        state, measured = step(state, FROZEN, raw)
        metrics.append(jax.device_get(measured))
    return state, metrics


def assert_trees_equal(a: Any, b: Any) -> None:
    """Bitwise."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


class Poisoned(FlowMatching):
    """A loss that is NaN for the samples of some steps (batches of 8)."""

    steps: tuple[int, ...] = ()

    def loss(self, model: Any, batch: Batch, *, key: Any) -> Any:
        loss, metrics = super().loss(model, batch, key=key)
        bad = jnp.isin(batch.index[0] // 8, jnp.asarray(self.steps))
        return loss * jnp.where(bad, jnp.nan, 1.0), metrics


def poisoned(*steps: int) -> Poisoned:
    objective = Poisoned()
    object.__setattr__(objective, "steps", steps)
    return objective
