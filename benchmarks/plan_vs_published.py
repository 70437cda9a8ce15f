"""Compares the step times of published runs with those that the planner's method estimates.

``python benchmarks/plan_vs_published.py`` builds the training steps of three publications in plain
JAX, compiles each for the TPU that its authors name, with the TPU compiler but without a TPU, and
prints the ratio of measured to estimated time. The spread of the ratios is the error that `pinxit
plan` states (`plan/step_time.py`).

| run | published | source |
|---|---|---|
| ViT-S/16, batch 1024, 224 pixels, v3-8 | 90 epochs of ImageNet in just under seven hours | Beyer et al. 2022, arXiv:2205.01580 |
| MAE ViT-L, 75 % masked, decoder of 8 blocks, batch 4096, 128 v3 cores | 800 epochs in 15.4 hours | He et al. 2021, arXiv:2111.06377, table 2 |
| DiT-XL/2 on 32x32 latents, batch 256, v3-256 | 5.7 steps a second | Peebles & Xie 2022, arXiv:2212.09748 |

Blocks are unrolled, as in those runs (``--scanned`` compiles faster, but the programs are slower).
Where the papers do not state the type of the activations, both float32 (a TPU computes products in
bfloat16 even then) and bfloat16 are tried. The published times include the input pipelines; the
estimates do not.
"""  # noqa: E501

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pinxit.files import whole
from pinxit.plan.compile_cache import cache_folder, worker_environment
from pinxit.plan.vendor_compilers import find_compiler

IMAGENET = 1_281_167
"""Training images."""
SCANNED = os.environ.get("SCANNED", "0") == "1"
"""Whether the blocks are compiled once and turned, which compiles in a tenth of the time. The step
then stores more for its backward pass and takes more cycles than the authors' own."""


@dataclass(frozen=True)
class Run:
    """A published run."""

    target: str
    batch: int
    seconds: float
    """Per step, as published."""


RUNS = {
    "vit_s16": Run("tpu-v3-8", 1024, 7 * 3600 / (90 * IMAGENET / 1024)),
    "mae_l": Run("tpu-v3-128", 4096, 15.4 * 3600 / (800 * IMAGENET / 4096)),
    "dit_xl2": Run("tpu-v3-256", 256, 1 / 5.7),
}


# --- the programs -----------------------------------------------------------------------------


def dense(params: Any, x: Any) -> Any:
    """A linear map in the type of its input."""
    return x @ params["w"].astype(x.dtype) + params["b"].astype(x.dtype)


def norm(x: Any, params: Any = None) -> Any:
    """Layer norm, moments in float32."""
    import jax
    import jax.numpy as jnp

    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    if params is not None:
        wide = wide * params["scale"] + params["bias"]
    return wide.astype(x.dtype)


def attention(params: Any, x: Any, heads: int) -> Any:
    """Self-attention, softmax in float32."""
    import jax
    import jax.numpy as jnp

    batch, tokens, width = x.shape
    q, k, v = jnp.split(dense(params["qkv"], x), 3, axis=-1)
    q, k, v = (y.reshape(batch, tokens, heads, width // heads) for y in (q, k, v))
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) * (width // heads) ** -0.5
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(x.dtype)
    out = jnp.einsum("bhnm,bmhd->bnhd", weights, v).reshape(batch, tokens, width)
    return dense(params["out"], out)


def mlp(params: Any, x: Any) -> Any:
    """Two layers with GELU."""
    import jax

    return dense(params["down"], jax.nn.gelu(dense(params["up"], x)))


def vit_block(params: Any, x: Any, heads: int) -> Any:
    """A pre-norm block."""
    x = x + attention(params, norm(x, params["norm1"]), heads)
    return x + mlp(params, norm(x, params["norm2"]))


def dit_block(params: Any, x: Any, condition: Any, heads: int) -> Any:
    """A block with adaLN-zero."""
    import jax
    import jax.numpy as jnp

    modulation = dense(params["modulation"], jax.nn.silu(condition))[:, None]
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
    x = x + gate_a * attention(params, norm(x) * (1 + scale_a) + shift_a, heads)
    return x + gate_m * mlp(params, norm(x) * (1 + scale_m) + shift_m)


def blocks(params: Any, x: Any, block: Callable[..., Any]) -> Any:
    """All blocks: one after the other, as in these runs, or one compiled and turned."""
    import jax

    if not SCANNED:
        for i in range(jax.tree.leaves(params)[0].shape[0]):
            x = block(jax.tree.map(lambda leaf, i=i: leaf[i], params), x)
        return x
    return jax.lax.scan(lambda x, layer: (block(layer, x), None), x, params)[0]


def linear_shape(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {"w": (inputs, outputs), "b": (outputs,)}


def block_shapes(width: int, depth: int, *, modulated: bool = False) -> Any:
    """Of all blocks, stacked."""
    import jax

    shapes: dict[str, Any] = {
        "qkv": linear_shape(width, 3 * width),
        "out": linear_shape(width, width),
        "up": linear_shape(width, 4 * width),
        "down": linear_shape(4 * width, width),
    }
    if modulated:
        shapes["modulation"] = linear_shape(width, 6 * width)
    else:
        shapes |= {name: {"scale": (width,), "bias": (width,)} for name in ("norm1", "norm2")}
    return jax.tree.map(lambda s: (depth, *s), shapes, is_leaf=lambda s: isinstance(s, tuple))


def patches(images: Any, side: int) -> Any:
    """Images to rows of patches."""
    batch, size, _, channels = images.shape
    n = size // side
    cut = images.reshape(batch, n, side, n, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(batch, n * n, side * side * channels)


def vit_s16(dtype: Any) -> tuple[Any, Any, Callable[..., Any]]:
    """Shapes of parameters and batch, and the loss."""
    import jax
    import jax.numpy as jnp

    width, depth, heads = 384, 12, 6
    shapes = {
        "patch": linear_shape(16 * 16 * 3, width),
        "blocks": block_shapes(width, depth),
        "norm": {"scale": (width,), "bias": (width,)},
        "head": linear_shape(width, 1000),
    }
    batch = {"image": ((224, 224, 3), jnp.float32), "label": ((1000,), jnp.float32)}

    def loss(params: Any, batch: Any, key: Any) -> Any:
        x = dense(params["patch"], patches(batch["image"].astype(dtype), 16))
        x = blocks(params["blocks"], x, partial(vit_block, heads=heads))
        logits = dense(params["head"], norm(x, params["norm"]).mean(1)).astype(jnp.float32)
        return -(batch["label"] * jax.nn.log_softmax(logits)).sum(-1).mean()

    return shapes, batch, loss


def mae_l(dtype: Any) -> tuple[Any, Any, Callable[..., Any]]:
    """As `vit_s16`: an encoder of 49 of 196 patches and a class token, a decoder of all."""
    import jax
    import jax.numpy as jnp

    width, narrow = 1024, 512
    shapes = {
        "patch": linear_shape(16 * 16 * 3, width),
        "class": (1, 1, width),
        "encoder": block_shapes(width, 24),
        "norm": {"scale": (width,), "bias": (width,)},
        "to_decoder": linear_shape(width, narrow),
        "mask": (1, 1, narrow),
        "decoder": block_shapes(narrow, 8),
        "decoder_norm": {"scale": (narrow,), "bias": (narrow,)},
        "out": linear_shape(narrow, 16 * 16 * 3),
    }
    batch = {"image": ((224, 224, 3), jnp.float32)}

    def loss(params: Any, batch: Any, key: Any) -> Any:
        pixels = patches(batch["image"].astype(dtype), 16)
        rows = len(pixels)
        order = jnp.argsort(jax.random.uniform(key, (rows, 196)), axis=1)
        back = jnp.argsort(order, axis=1)
        kept = jnp.take_along_axis(pixels, order[:, :49, None], axis=1)
        first = jnp.broadcast_to(params["class"].astype(dtype), (rows, 1, width))
        x = jnp.concatenate([first, dense(params["patch"], kept)], axis=1)
        x = blocks(params["encoder"], x, partial(vit_block, heads=16))
        x = dense(params["to_decoder"], norm(x, params["norm"]))
        hidden = jnp.broadcast_to(params["mask"].astype(dtype), (rows, 147, narrow))
        whole = jnp.concatenate([x[:, 1:], hidden], axis=1)
        whole = jnp.take_along_axis(whole, back[:, :, None], axis=1)
        x = jnp.concatenate([x[:, :1], whole], axis=1)
        x = blocks(params["decoder"], x, partial(vit_block, heads=16))
        out = dense(params["out"], norm(x, params["decoder_norm"]))[:, 1:]
        error = ((out - pixels).astype(jnp.float32) ** 2).mean(-1)
        masked = back >= 49
        return (error * masked).sum() / masked.sum()

    return shapes, batch, loss


def dit_xl2(dtype: Any) -> tuple[Any, Any, Callable[..., Any]]:
    """As `vit_s16`: 256 tokens of 2 x 2 latent cells, 28 blocks, time and class conditioning."""
    import jax
    import jax.numpy as jnp

    width, depth, heads = 1152, 28, 16
    shapes = {
        "patch": linear_shape(16, width),
        "time1": linear_shape(256, width),
        "time2": linear_shape(width, width),
        "label": (1001, width),
        "blocks": block_shapes(width, depth, modulated=True),
        "final": linear_shape(width, 2 * width),
        "out": linear_shape(width, 32),
    }
    batch = {"latents": ((32, 32, 4), jnp.float32), "label": ((), jnp.int32)}

    def loss(params: Any, batch: Any, key: Any) -> Any:
        keys = jax.random.split(key)
        t = jax.random.uniform(keys[0], batch["label"].shape)
        noise = jax.random.normal(keys[1], batch["latents"].shape)
        angle = t[:, None] * 1000 * jnp.exp(-jnp.linspace(0, 9.2, 128))[None]
        features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1).astype(dtype)
        time = dense(params["time2"], jax.nn.silu(dense(params["time1"], features)))
        condition = time + params["label"].astype(dtype)[batch["label"]]
        mixed = batch["latents"] * (1 - t)[:, None, None, None] + noise * t[:, None, None, None]
        x = dense(params["patch"], patches(mixed.astype(dtype), 2))
        step = partial(dit_block, heads=heads)
        x = blocks(params["blocks"], x, lambda layer, x: step(layer, x, condition))
        shift, scale = jnp.split(dense(params["final"], jax.nn.silu(condition))[:, None], 2, -1)
        out = dense(params["out"], norm(x) * (1 + scale) + shift).astype(jnp.float32)
        return ((out[..., :16] - patches(noise, 2)) ** 2).mean() + (out[..., 16:] ** 2).mean()

    return shapes, batch, loss


PROGRAMS = {"vit_s16": vit_s16, "mae_l": mae_l, "dit_xl2": dit_xl2}


# --- compiling --------------------------------------------------------------------------------


def work(name: str, dtype: str, folder: str) -> dict[str, Any]:
    """Returns the estimate's seconds for one program, which this process compiles unless its text
    is in `folder`."""
    from pinxit.plan.targets import get_target
    from pinxit.plan.tpu_cycles import estimate, read_program

    path = Path(folder) / f"{name}_{dtype}_{'scanned' if SCANNED else 'unrolled'}.hlo.gz"
    if not path.is_file():
        text = compiled_text(name, dtype)
        with whole(path) as temporary:
            temporary.write_bytes(gzip.compress(text.encode()))
    target = get_target(RUNS[name].target)
    estimated = estimate(read_program(path))
    links = estimated.collective_seconds(target.chip.link)
    return {
        "device": estimated.seconds(target.chip.clock),
        "links": links,
        "sent": estimated.collective_bytes,
    }


def compiled_text(name: str, dtype: str) -> str:
    """Compiles one program and returns its text."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from pinxit.plan.compile_worker import described
    from pinxit.plan.targets import get_target

    run = RUNS[name]
    target = get_target(run.target)
    shapes, columns, loss = PROGRAMS[name](jnp.dtype(dtype))
    mesh = Mesh(np.asarray(described(target)), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    cut = NamedSharding(mesh, PartitionSpec("data"))
    leaf = lambda s: isinstance(s, tuple)  # noqa: E731
    params = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32, sharding=everywhere), shapes, is_leaf=leaf
    )
    optimizer = optax.adamw(1e-3)
    state = jax.eval_shape(optimizer.init, params)
    state = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), state
    )
    batch = {
        column: jax.ShapeDtypeStruct((run.batch, *shape), kind, sharding=cut)
        for column, (shape, kind) in columns.items()
    }

    def step(params: Any, average: Any, state: Any, batch: Any, seed: Any) -> Any:
        key = jax.random.key(seed)
        gradient = jax.grad(loss)(params, batch, key)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: a + 1e-4 * (p - a), average, params)
        return params, average, state

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    return jitted.lower(params, params, state, batch, seed).compile().as_text()


def main() -> None:
    """Prints a row for each run and type, and the spread."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=list(RUNS))
    parser.add_argument("--scanned", action="store_true", help="compile one block and loop over it")
    parser.add_argument(
        "--programs",
        default=str(cache_folder() / "published"),
        help="folder of the compiled programs' texts; those in it are not compiled again",
    )
    parser.add_argument("--work", nargs=2, metavar=("RUN", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(*options.work, options.programs)))
        return
    env = worker_environment("tpu", find_compiler("tpu", target="tpu-v3-8"))
    env["SCANNED"] = str(int(options.scanned))
    ratios = []
    print("| run | activations | published s/step | estimated: cores + links | ratio |")
    print("|---|---|---|---|---|")
    for name in [options.only] if options.only else RUNS:
        for dtype in ("float32", "bfloat16"):
            command = [sys.executable, __file__, "--work", name, dtype]
            command += ["--programs", options.programs]
            done = subprocess.run(
                command, env={**os.environ, **env}, capture_output=True, text=True, check=False
            )
            if "RESOURCE_EXHAUSTED" in done.stderr:
                print(f"| {name} | {dtype} | {RUNS[name].seconds:.4f} | does not fit | |")
                continue
            if done.returncode:
                raise SystemExit(f"{name} {dtype}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            measured, total = RUNS[name].seconds, found["device"] + found["links"]
            ratios.append(measured / total)
            shown = f"{found['device']:.4f} + {found['links']:.4f}"
            print(f"| {name} | {dtype} | {measured:.4f} | {shown} | {ratios[-1]:.2f} |", flush=True)
    print(f"\nmeasured over estimated: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
