"""The optimiser: AdamW or Muon, with warm-up, a schedule, clipping and decoupled weight decay.

Muon (`pinxit.train.muon`) updates the matrices of the blocks. AdamW updates everything else
(embeddings, first and last layers, norms, biases). Both use the same learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from pinxit.config import UsageError
from pinxit.train.muon import scale_by_muon

NAMES = ("adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear")


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
    """Number of steps in which the learning rate rises linearly (at most a fifth of the run)."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Shape of the learning rate after the warm-up."""
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
                raise UsageError(f"optimizer.{name}: {getattr(self, name)} must be in [0, 1)")
        for name in ("weight_decay", "warmup_steps", "final_fraction"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"optimizer.{name}: {getattr(self, name)} must not be negative")
        for name in ("eps", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"optimizer.{name}: {value} must be above 0")


def build_schedule(config: OptimizerConfig, max_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates so far."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    warmup = min(config.warmup_steps, max_steps // 5)
    rest = max(1, max_steps - warmup)
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=config.final_fraction)
    else:
        after = optax.linear_schedule(peak, final, rest)
    if warmup == 0:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup]
    )


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
    config: OptimizerConfig, max_steps: int, *, num_heads: int
) -> optax.GradientTransformation:
    """Builds the optimiser for `max_steps` updates of a network with `num_heads` heads."""
    rate = build_schedule(config, max_steps)
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
    if config.clip_norm is None:
        return core
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), core)
