"""Compares our training step and sampling with torch's, for the same network and machine.

It times, in one process and in turns, (1) a training step: forward, backward and AdamW, and (2)
sampling with 8 Euler steps without guidance, for our transformer and for diffusers'
`PRXTransformer2DModel` with the same weights. The script prints the medians of wall and CPU time
and their ratios; above 1, ours is faster. Run it on an idle machine: torch's threads wait for one
another, so another busy program slows torch far more than ours. The torch class has a modulation
matrix per block where ours shares one, so it holds more parameters for the same function.

    python benchmarks/train_step_vs_torch.py --preset tiny --batch 16

It needs the ``parity`` extra. Memory is tuned as in training (`pinxit.cli.xla_environment`), for
both libraries alike.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from pinxit.cli.xla_environment import prepare_environment, restart_tuned

SAMPLING_STEPS = 8
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--grid", type=int, default=8, help="side of the latents, in cells")
    parser.add_argument("--text", type=int, default=16, help="text tokens")
    parser.add_argument("--context", type=int, default=256, help="width of the text encoder")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--scan", action="store_true", help="scan our blocks, do not unroll them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    return parser.parse_args()


def make_inputs(config: Any, args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (args.batch, args.grid, args.grid, config.in_channels)
    lengths = rng.integers(2, args.text + 1, (args.batch, 1))
    return {
        "x_t": rng.normal(size=shape).astype(np.float32),
        "target": rng.normal(size=shape).astype(np.float32),
        "t": rng.uniform(size=args.batch).astype(np.float32),
        "tokens": rng.normal(size=(args.batch, args.text, config.context_dim)).astype(np.float32),
        "mask": np.arange(args.text)[None, :] < lengths,
    }


def awake(params: Any) -> Any:
    """Fresh parameters start silent; noise makes comparing outputs mean something."""
    import jax
    import numpy as np

    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32), params)


def ours(config: Any, params: Any, inputs: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Functions that do one forward pass, one training step and one sampling, and wait for it."""
    import jax
    import jax.numpy as jnp
    import optax

    from pinxit.arrays import Conditioning
    from pinxit.flow.solvers import euler
    from pinxit.flow.time import time_grid
    from pinxit.models.transformer import apply

    x_t, target, t = (jnp.asarray(inputs[name]) for name in ("x_t", "target", "t"))
    conditioning = Conditioning(
        tokens=jnp.asarray(inputs["tokens"]), mask=jnp.asarray(inputs["mask"])
    )
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    forward = jax.jit(functools.partial(apply, config))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any) -> tuple[Any, Any, Any]:
        def loss_of(params: Any) -> Any:
            return jnp.mean(jnp.square(apply(config, params, x_t, t, conditioning) - target))

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    @jax.jit
    def sample(params: Any) -> Any:
        velocity_fn = functools.partial(apply, config, params)
        return euler(velocity_fn, x_t, time_grid(SAMPLING_STEPS), conditioning)

    training = jax.tree.map(jnp.array, params)
    carry = [training, optimizer.init(training)]

    def train() -> float:
        carry[0], carry[1], loss = step(*carry)
        return float(loss)

    return {
        "forward": lambda: jax.device_get(forward(params, x_t, t, conditioning)),
        "training step": train,
        "sampling": lambda: jax.device_get(sample(params)),
    }


def theirs(config: Any, params: Any, inputs: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """The same with torch, eager; outputs in our layout."""
    import torch
    from diffusers.models.transformers.transformer_prx import PRXTransformer2DModel

    from pinxit.flow.time import time_grid
    from pinxit.models.diffusers_prx import prx_config, to_prx

    shape = {name: value for name, value in prx_config(config).items() if name[0] != "_"}
    model = PRXTransformer2DModel(**shape)
    model.load_state_dict(
        {k: torch.from_numpy(v.copy()) for k, v in to_prx(params, config).items()}
    )
    trained = PRXTransformer2DModel(**shape)
    trained.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True
    )
    grids = [inputs[name].transpose(0, 3, 1, 2).copy() for name in ("x_t", "target")]
    x_t, target = (torch.from_numpy(grid) for grid in grids)
    t, tokens, mask = (torch.from_numpy(inputs[name]) for name in ("t", "tokens", "mask"))

    def velocity(model: Any, x: Any, t: Any) -> Any:
        return model(x, t, tokens, attention_mask=mask, return_dict=False)[0]

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = (velocity(trained, x_t, t) - target).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def forward() -> Any:
        with torch.inference_mode():
            return velocity(model, x_t, t).numpy().transpose(0, 2, 3, 1)

    def sample() -> Any:
        times = time_grid(SAMPLING_STEPS).tolist()
        with torch.inference_mode():
            x = x_t
            for now, then in itertools.pairwise(times):
                x = x + (then - now) * velocity(model, x, torch.full_like(t, now))
        return x.numpy().transpose(0, 2, 3, 1)

    return {"forward": forward, "training step": train, "sampling": sample}


def measure(run: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    mine: dict[str, Callable[[], Any]], other: dict[str, Callable[[], Any]], repeats: int
) -> None:
    """Times both in turns and prints a line for each task."""
    print(f"{'':14} {'wall ms':>19} {'ratio':>6}   {'CPU ms':>19} {'ratio':>6}")
    print(f"{'':14} {'ours':>9} {'torch':>9} {'':6}   {'ours':>9} {'torch':>9}")
    for task in ("training step", "sampling"):
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "torch": []}
        for repeat in range(repeats + 2):
            for name, functions in (("ours", mine), ("torch", other)):
                measured = measure(functions[task])
                if repeat >= 2:  # the first ones compile and warm up
                    times[name].append(measured)
        line = f"{task:14}"
        for kind in (0, 1):
            a, b = (1000 * median(pair[kind] for pair in times[name]) for name in times)
            line += f" {a:9.1f} {b:9.1f} {b / a:6.2f}  "
        print(line)


def main() -> None:
    args = arguments()
    prepare_environment()
    restart_tuned()
    import jax
    import numpy as np
    import torch

    from pinxit.models.transformer import init_params, preset

    torch.set_num_threads(args.threads)
    config = preset(args.preset, context_dim=args.context, scan_blocks=args.scan)
    params = awake(init_params(config, jax.random.key(0)))
    inputs = make_inputs(config, args)
    mine, other = ours(config, params, inputs), theirs(config, params, inputs)
    difference = float(np.abs(mine["forward"]() - other["forward"]()).max())
    print(
        f"{args.preset}: {config.hidden_size} x {config.depth}, batch {args.batch}, "
        f"{(args.grid // config.patch_size) ** 2} image and {args.text} text tokens, fp32, "
        f"{'scanned' if args.scan else 'unrolled'}, jax {jax.__version__} on "
        f"{jax.devices()[0].device_kind}, torch {torch.__version__} with {args.threads} threads"
    )
    print(f"largest difference of the outputs: {difference:.1e}")
    compare(mine, other, args.repeats)


if __name__ == "__main__":
    main()
