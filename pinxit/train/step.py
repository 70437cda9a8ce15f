"""The training step: encoding, loss, gradient, optimiser and averages, compiled as one program.

The batch is split into `accumulation` pieces whose gradients are averaged. Each sample's random key
is folded with its index, so splitting changes nothing except rounding. A step whose loss or
gradient is not finite leaves parameters, averages and optimiser unchanged, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from pinxit.arrays import Batch, Conditioning, Objective
from pinxit.train.ema import EmaConfig, update_ema
from pinxit.train.state import TrainState

ApplyFn = Callable[[Any, Array, Array, Conditioning], Array]
"""Maps (params, x_t, t, conditioning) to a velocity."""
EncodeFn = Callable[[Any, dict[str, Array]], Batch]
"""Maps (frozen weights, a batch's columns) to a batch. It is pure and runs inside the step."""
StepFn = Callable[[TrainState, Any, dict[str, Any]], tuple[TrainState, dict[str, Array]]]


@dataclass(frozen=True)
class LossScaling:
    """Dynamic loss scaling for float16: halves on overflow, doubles after many finite steps."""

    initial: float = 2.0**15
    """Scale of the first step."""
    growth_interval: int = 1000
    """Number of consecutive finite steps after which the scale doubles."""
    maximum: float = 2.0**24
    """Largest value of the scale."""


def cut(columns: Any, pieces: int) -> Any:
    """Reshapes arrays ``(b, ...)`` to ``(pieces, b / pieces, ...)``, without moving rows between
    devices."""
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 0, 1), columns
    )


def uncut(columns: Any) -> Any:
    """Reverses `cut`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), columns)


def _merge(metrics: dict[str, Array]) -> dict[str, Array]:
    """Merges the metrics of the pieces: averages scalars and adds histograms."""
    return {name: jnp.mean(m, 0) if m.ndim == 1 else jnp.sum(m, 0) for name, m in metrics.items()}


def _select(finite: Array, new: Any, old: Any) -> Any:
    """Selects `new` if the step was finite, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def _next_scale(
    scaling: LossScaling | None, state: TrainState, finite: Array
) -> tuple[Array, Array]:
    """Returns the loss scale and the number of finite steps after this step."""
    if scaling is None:
        return state.loss_scale, state.good_steps
    calm = jnp.where(finite, state.good_steps + 1, 0)
    grow = calm >= scaling.growth_interval
    grown = jnp.minimum(state.loss_scale * 2.0, scaling.maximum)
    scale = jnp.where(grow, grown, state.loss_scale)
    scale = jnp.where(finite, scale, jnp.maximum(state.loss_scale * 0.5, 1.0))
    return scale, jnp.where(grow, 0, calm)


def _make_gradient(
    objective: Objective, apply_fn: ApplyFn, encode: EncodeFn, accumulation: int
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """Makes ``gradient(state, frozen, columns, key)``, which returns the batch's mean gradient and
    its metrics."""

    def piece(
        state: TrainState, frozen: Any, columns: dict[str, Array], key: Array
    ) -> tuple[Any, dict[str, Array]]:
        with jax.named_scope("encode"):
            batch = encode(frozen, columns)

        def scaled_loss(params: Any) -> tuple[Array, dict[str, Array]]:
            def model(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
                return apply_fn(params, x_t, t, conditioning)

            loss, metrics = objective.loss(model, batch, key=key)
            return loss * state.loss_scale, {**metrics, "loss": loss}

        return jax.grad(scaled_loss, has_aux=True)(state.params)

    def gradient(
        state: TrainState, frozen: Any, columns: dict[str, Array], key: Array
    ) -> tuple[Any, dict[str, Array]]:
        if accumulation == 1:
            grads, metrics = piece(state, frozen, columns, key)
        else:

            def add(total: Any, part: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
                grads, metrics = piece(state, frozen, part, key)
                return jax.tree.map(jnp.add, total, grads), metrics

            zeros = jax.tree.map(jnp.zeros_like, state.params)
            grads, metrics = jax.lax.scan(add, zeros, cut(columns, accumulation))
            metrics = _merge(metrics)
        return jax.tree.map(lambda g: g / (state.loss_scale * accumulation), grads), metrics

    return gradient


def make_train_step(
    objective: Objective,
    apply_fn: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    encode: EncodeFn,
    seed: int = 0,
    accumulation: int = 1,
    ema: EmaConfig | None = None,
    loss_scaling: LossScaling | None = None,
    out_shardings: Any = None,
    compiler_options: dict[str, Any] | None = None,
) -> StepFn:
    """Makes the jitted ``step(state, frozen, columns) -> (state, metrics)``, which consumes
    `state`.

    The metrics stay on the device. Scalars are means over the batch, arrays are sums over it.
    """
    gradient = _make_gradient(objective, apply_fn, encode, accumulation)

    def step(state: TrainState, frozen: Any, columns: dict[str, Array]) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, metrics = gradient(state, frozen, columns, key)
        with jax.named_scope("optimizer"):
            grad_norm = optax.tree.norm(grads)
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = _select(finite, optax.apply_updates(state.params, updates), state.params)
            opt_state = _select(finite, opt_state, state.opt_state)
        averages = state.ema
        if ema is not None:
            with jax.named_scope("ema"):
                averages = update_ema(ema, state.ema, params, step=state.step + 1)
                averages = _select(finite, averages, state.ema)
        loss_scale, good_steps = _next_scale(loss_scaling, state, finite)
        state = replace(
            state,
            step=state.step + 1,
            params=params,
            ema=averages,
            opt_state=opt_state,
            skipped=state.skipped + ~finite,
            consecutive=jnp.where(finite, 0, state.consecutive + 1),
            loss_scale=loss_scale,
            good_steps=good_steps,
        )
        counters = {"skipped": state.skipped, "consecutive": state.consecutive}
        if loss_scaling is not None:
            counters["loss_scale"] = loss_scale
        return state, metrics | counters | {"grad_norm": grad_norm}

    kwargs = {} if out_shardings is None else {"out_shardings": out_shardings}
    return jax.jit(step, donate_argnums=(0,), compiler_options=compiler_options, **kwargs)
