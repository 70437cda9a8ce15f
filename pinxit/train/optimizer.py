"""The optimiser: AdamW or Muon, with warm-up, a schedule, clipping and decoupled weight decay.

The schedule ``wsd`` (warm-up, stable, decay) is constant until the last D = ``decay_steps`` of N
steps, then falls as ``1 - sqrt((n - (N - D)) / D)`` (Hägele et al. 2024, arXiv:2405.18392, where
this form ended at lower losses than a linear decay). Up to the decay it does not depend on N, so a
run that goes on from there with a larger N is the run that had been longer from the start. A cosine
schedule depends on N everywhere.

Muon (`pinxit.train.muon`) updates the matrices of the blocks. AdamW updates everything else
(embeddings, first and last layers, norms, biases). Both use the same learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from pinxit.config import UsageError, positive
from pinxit.train.muon import scale_by_muon
from pinxit.train.resume_policy import SettingChange

NAMES = ("adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear", "wsd")


@dataclass(frozen=True)
class OptimizerConfig:
    """The settings of the optimiser."""

    name: Literal["adamw", "muon"] = "adamw"
    """Name of the optimiser. muon updates the matrices of the blocks and uses AdamW for the
    rest."""
    learning_rate: float = 1e-3
    """Peak learning rate, which is reached at the end of the warm-up."""
    b1: float = 0.9
    """Decay rate of Adam's first moment (momentum)."""
    b2: float = 0.99
    """Decay rate of Adam's second moment."""
    eps: float = 1e-8
    """Constant that is added to the root of Adam's second moment."""
    momentum: float = 0.95
    """Momentum of Muon (Nesterov)."""
    weight_decay: float = 0.01
    """Decoupled weight decay, which applies to matrices only."""
    warmup_steps: int = 100
    """Number of steps in which the learning rate rises linearly (at most a fifth of the run). If a
    run changes it later, another warm-up of that length begins there."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    """Shape of the learning rate after the warm-up. wsd is constant and falls in the last
    decay_steps, so that a run can be extended."""
    decay_steps: int | None = None
    """Number of last steps in which the learning rate of wsd falls. none means a fifth of the
    run."""
    final_fraction: float = 0.0
    """Learning rate of the last step, as a fraction of the peak."""
    clip_norm: float | None = 1.0
    """Largest gradient norm. Larger gradients are scaled down to it. none disables clipping."""

    def __post_init__(self) -> None:
        """Refuses unknown names and numbers out of range."""
        if self.name not in NAMES:
            raise UsageError(
                f"optimizer.name: unknown optimizer {self.name!r}; known: {', '.join(NAMES)}"
            )
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"optimizer.schedule: unknown schedule {self.schedule!r}; "
                f"known: {', '.join(SCHEDULES)}"
            )
        if not self.learning_rate > 0:
            raise UsageError(f"optimizer.learning_rate: {self.learning_rate} must be above 0")
        for name in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"optimizer.{name}: {getattr(self, name)} must be at least 0 and below 1"
                )
        for name in ("weight_decay", "warmup_steps", "final_fraction"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"optimizer.{name}: {getattr(self, name)} must not be negative")
        positive("optimizer.decay_steps", self.decay_steps)
        for name in ("eps", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"optimizer.{name}: {value} must be above 0")


def _warmup(config: OptimizerConfig, max_steps: int) -> int:
    return min(config.warmup_steps, max_steps // 5)


def decay_start(config: OptimizerConfig, max_steps: int) -> int | None:
    """Returns the step at which the decay of wsd starts, or None for other schedules."""
    if config.schedule != "wsd":
        return None
    steps = max_steps // 5 if config.decay_steps is None else config.decay_steps
    return max(_warmup(config, max_steps), max_steps - max(1, steps))


def build_schedule(
    config: OptimizerConfig, max_steps: int, changes: Sequence[SettingChange] = ()
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates so far.

    `changes` are those that the run made to its settings. A changed warm-up does not stretch the
    schedule: from the update of the change on, the rate rises linearly from near 0 to the
    schedule's.
    """
    warmups = [change for change in changes if change.setting == "optimizer.warmup_steps"]
    if not warmups:
        return _schedule(config, max_steps)
    plain = _schedule(replace(config, warmup_steps=warmups[0].old), max_steps)

    def rate(count: Any) -> Any:
        value = plain(count)
        for change in warmups:
            risen = jnp.minimum((count - change.updates + 1) / max(1, change.new), 1.0)
            value = value * jnp.where(count >= change.updates, risen, 1.0)
        return value

    return rate


def _schedule(config: OptimizerConfig, max_steps: int) -> optax.Schedule:
    """Returns the learning rate of a run that never changed its settings."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    warmup = _warmup(config, max_steps)
    rest = max(1, max_steps - warmup)
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, final, rest)
    else:
        stable = (decay_start(config, max_steps) or 0) - warmup
        after = _stable_then_decay(peak, final, stable, max(1, rest - stable))
    if warmup == 0:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup]
    )


def _stable_then_decay(peak: float, final: float, stable: int, decay: int) -> optax.Schedule:
    """Returns a rate that is constant for `stable` updates, then falls by 1 - sqrt in `decay`."""

    def rate(count: Any) -> Any:
        progress = jnp.clip((count - stable) / decay, 0.0, 1.0)
        return peak - (peak - final) * jnp.sqrt(progress)

    return rate


def _is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
    """Returns True for weights of linear maps (also stacked), False for norms, biases and
    tables."""
    name = str(getattr(path[-1], "key", path[-1])) if path else ""
    if leaf.ndim >= 3:
        return True
    return leaf.ndim == 2 and name.startswith(("kernel", "weight", "w_"))


def decayed(params: Any) -> Any:
    """Returns a tree of booleans: True for leaves that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(_is_matrix, params)


def _labels(params: Any) -> Any:
    """Returns a tree with the optimiser of each leaf, "muon" or "adam"."""

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        modulation = any("modulation" in str(key) for key in path)
        return "muon" if leaf.ndim == 3 and not modulation else "adam"

    return jax.tree_util.tree_map_with_path(label, params)


def build_optimizer(
    config: OptimizerConfig,
    max_steps: int,
    *,
    num_heads: int,
    changes: Sequence[SettingChange] = (),
) -> optax.GradientTransformation:
    """Builds the optimiser for `max_steps` updates of a network with `num_heads` heads.

    The structure of its state depends on the optimiser's name only, so that every other setting may
    change during a run. `changes` are those that the run made.
    """
    rate = build_schedule(config, max_steps, changes)
    core = optax.chain(
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(rate),
    )
    if config.name == "muon":
        muon = optax.chain(
            scale_by_muon(config.momentum, num_heads=num_heads),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(rate),
        )
        core = optax.partition({"muon": muon, "adam": core}, _labels)
    norm = config.clip_norm
    return optax.chain(optax.identity() if norm is None else optax.clip_by_global_norm(norm), core)
