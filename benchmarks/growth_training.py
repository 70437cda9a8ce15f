"""Axes of `benchmarks/growth.py`: a training step as its batch, tokens, depth and devices grow.

The network is narrow, so that a point takes seconds. The step is the real one, with its objective,
AdamW and one average.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from growth_axes import Act, Axis, Extras, doubling, record

WIDTH, HEADS, STEPS = 64, 4, 4
BATCH, GRID, TEXT, DEPTH = 16, 8, 16, 2


def step_of(
    *,
    batch: int = BATCH,
    grid: int = GRID,
    text: int = TEXT,
    depth: int = DEPTH,
    scan: bool = True,
    pieces: int = 1,
    remat: str = "none",
) -> Act:
    """Returns a function that compiles a step and takes a few."""
    import jax

    from pinxit.arrays import Batch, Conditioning
    from pinxit.devices.mesh import batch_sharding, make_mesh, replicated, state_shardings
    from pinxit.flow.objective import FlowMatching
    from pinxit.models.transformer import TransformerConfig, apply, init_params
    from pinxit.train.ema import EmaConfig
    from pinxit.train.optimizer import OptimizerConfig, build_optimizer
    from pinxit.train.state import init_state
    from pinxit.train.step import make_train_step

    model = TransformerConfig(
        hidden_size=WIDTH,
        depth=depth,
        num_heads=HEADS,
        patch_size=1,
        context_dim=WIDTH,
        scan_blocks=scan,
        remat=remat,  # pyrefly: ignore[bad-argument-type]
    )

    def encode(frozen: Any, columns: Any) -> Batch:
        tokens = columns["tokens"]
        mask = jax.numpy.ones(tokens.shape[:2], bool)
        null = Conditioning(jax.numpy.zeros_like(tokens[:1]), mask[:1])
        return Batch(columns["latents"], Conditioning(tokens, mask), columns["index"], null)

    def act() -> Extras:
        mesh = make_mesh(f"data={jax.device_count()}", say=lambda line: None)
        optimizer = build_optimizer(OptimizerConfig(), 1000, num_heads=HEADS)
        ema = EmaConfig(lengths=(0.1,))
        state = init_state(init_params(model, jax.random.key(0)), optimizer, ema=ema)
        shardings = state_shardings(state, mesh)
        step = make_train_step(
            FlowMatching(),
            partial(apply, model),
            optimizer,
            encode=encode,
            ema=ema,
            accumulation=pieces,
            out_shardings=(shardings, replicated(mesh)),
        )
        state = jax.device_put(state, shardings)
        key = jax.random.key(1)
        columns = {
            "latents": jax.random.normal(key, (batch, grid, grid, model.in_channels)),
            "tokens": jax.random.normal(key, (batch, text, WIDTH)),
            "index": jax.numpy.arange(batch),
        }
        columns = jax.device_put(columns, batch_sharding(mesh))
        jax.block_until_ready((state, columns))
        started = time.process_time()
        compiled = step.lower(state, {}, columns).compile()
        compile_seconds = time.process_time() - started
        state, metrics = compiled(state, {}, columns)
        jax.block_until_ready(metrics)
        started = time.process_time()
        for _ in range(STEPS):
            state, metrics = compiled(state, {}, columns)
        jax.block_until_ready((state, metrics))
        seconds = (time.process_time() - started) / STEPS
        memory, text_of = compiled.memory_analysis(), compiled.as_text()
        device = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        return record(
            seconds=seconds,
            compile=compile_seconds,
            device_mib=device / 2**20,
            instructions=text_of.count(" = "),
            collectives=text_of.count(" all-reduce(") + text_of.count(" all-gather("),
        )

    return act


def _prepare(folder: Path, size: int, *, name: str, **fixed: Any) -> Act:
    return step_of(**{name: size}, **fixed)


def _devices(folder: Path, size: int) -> Act:
    return step_of(batch=32)


def _device_flags(size: int) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={size}"}


def _tokens(folder: Path, size: int) -> Act:
    return step_of(grid=round(size**0.5), batch=4)


SCORES = "attention compares every pair of image tokens, so its scores grow with their square"


def step_axis(
    name: str, values: tuple[int, ...], prepare: Callable[[Path, int], Act], **more: Any
) -> Axis:
    """Returns an axis with one process for each size, which takes several steps, twice."""
    return Axis(f"step: {name}", "training", values, prepare, **more)


TRAINING = (
    step_axis(
        "batch",
        doubling(1, 64),
        partial(_prepare, name="batch"),
        because="larger batches leave the caches; in pieces of 4, the batch of 64 takes 37 % less",
    ),
    step_axis(
        "image tokens",
        doubling(16, 1024, 4),
        _tokens,
        because=SCORES,
    ),
    step_axis(
        "text tokens",
        doubling(16, 512),
        partial(_prepare, name="text", batch=4),
    ),
    step_axis(
        "depth, scanned",
        doubling(1, 16),
        partial(_prepare, name="depth"),
    ),
    step_axis(
        "depth, unrolled",
        doubling(1, 16),
        partial(_prepare, name="depth", scan=False),
    ),
    step_axis(
        "pieces of a batch of 64",
        doubling(1, 16),
        partial(_prepare, name="pieces", batch=64),
    ),
    step_axis(
        "devices, batch 32",
        doubling(1, 8),
        _devices,
        environment=_device_flags,
    ),
)
