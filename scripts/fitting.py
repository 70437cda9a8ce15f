"""Provides the asset scripts' training loop: Muon or AdamW, warm-up, cosine decay, averages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib
from safetensors.numpy import load_file, save_file

from pinxit.data.scenes.dataset import Scenes


def scene_pool(count: int, *, seed: int, split: str = "any") -> tuple[np.ndarray, list, list]:
    """`count` pictures (uint8), their captions and their labels, all drawn in advance."""
    scenes = Scenes(length=count, seed=seed, split=split)
    images, captions, labels = np.empty((count, 64, 64, 3), np.uint8), [], []
    for i in range(count):
        example = scenes[i]
        images[i] = example.image
        captions.append(example.caption)
        labels.append(example.attributes)
    return images, captions, labels


def to_unit(images: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1.0


def fit(
    loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    params: Any,
    batches: Iterator[Any],
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 200,
    weight_decay: float = 0.01,
    ema_decay: float = 0.999,
    muon: bool = False,
    seed: int = 0,
    every: int = 100,
    on_report: Callable[[int, Any], None] | None = None,
) -> Any:
    """Minimises ``loss_fn(params, batch, key)``; returns the averaged parameters."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup, steps, 0.02 * learning_rate
    )
    adamw = optax.adamw(schedule, b2=0.99, weight_decay=weight_decay)
    core = optax.partition({"muon": _muon(schedule), "adam": adamw}, _labels) if muon else adamw
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), core)

    @jax.jit
    def update(params, average, state, batch, step):
        key = jax.random.fold_in(jax.random.key(seed), step)
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, key)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(ema_decay, (step + 1.0) / (step + 10.0))
        average = jax.tree.map(lambda a, p: a * decay + p * (1 - decay), average, params)
        return params, average, state, {"loss": loss, **metrics}

    average, state, started = params, optimizer.init(params), time.time()
    totals: dict[str, float] = {}
    for step in range(steps):
        params, average, state, metrics = update(params, average, state, next(batches), step)
        if step % 10 == 0:
            for name, value in metrics.items():
                totals[name] = 0.7 * totals.get(name, float(value)) + 0.3 * float(value)
        if (step + 1) % every == 0:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in totals.items())
            print(f"step {step + 1}/{steps}  {time.time() - started:.0f} s  {shown}", flush=True)
            if on_report is not None:
                on_report(step + 1, average)
    return average


def _muon(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Orthogonal updates for kernels, (in, out) or (height, width, in, out), of Adam's size."""

    def dimensions(updates: Any) -> Any:
        def of(leaf: Any) -> contrib.MuonDimensionNumbers:
            return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

        return jax.tree.map(of, updates)

    def match_adam(updates: Any, params: Any = None) -> Any:
        def of(u: jax.Array) -> jax.Array:
            return u * (0.2 * max(u.shape[-1], u.size // u.shape[-1]) ** 0.5)

        return jax.tree.map(of, updates)

    return optax.chain(
        contrib.scale_by_muon(beta=0.95, weight_dimension_numbers=dimensions),
        optax.stateless(match_adam),
        optax.scale_by_learning_rate(schedule),
    )


def _labels(params: Any) -> Any:
    """Muon for kernels that lead from many channels to many."""

    def of(path: tuple[Any, ...], leaf: Any) -> str:
        kernel = getattr(path[-1], "key", "") == "kernel"
        return "muon" if kernel and min(leaf.shape[-2:]) >= 8 else "adam"

    return jax.tree_util.tree_map_with_path(of, params)


def shuffled(count: int, batch: int, *, seed: int) -> Iterator[np.ndarray]:
    """Index batches, a new permutation each epoch, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def asset_directory(name: str) -> Path:
    """Where the bundle lives inside the package."""
    return Path(__file__).parent.parent / "pinxit" / "assets" / name


def halve(directory: Path) -> None:
    """Rewrites a folder's safetensors in float16: half the size, and the models do not notice."""
    for path in sorted(directory.rglob("*.safetensors")):
        tensors = {name: np.asarray(value, np.float16) for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
