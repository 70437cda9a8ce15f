"""Compares our training step and sampling with torch's, for the same network and machine.

The sides are our transformer, diffusers' `PRXTransformer2DModel` with the same weights, and the
same class with its forward pass compiled by `torch.compile`. Each side is alone in its process, and
the processes take turns (see `process_turns`). A process measures (1) sampling: some Euler steps
without guidance, and (2) a training step: forward, backward and AdamW. The script compares the
sampled latents and the first losses of the sides, and prints the medians of wall time, CPU time and
peak memory, and torch's over ours: above 1, ours needs less. Last come the limits that the rate of
matrix products sets to the step (see `product_rates`), and the share of each that we reach.

The torch class has a modulation matrix per block where ours shares one, so it holds more parameters
for the same function. Its AdamW is the fused one, the fastest on a CPU. With ``--amp``, our network
computes in bfloat16 and torch under `torch.autocast`. Memory is tuned as in training, for both.

    python benchmarks/train_step_vs_torch.py --setup small
    python benchmarks/train_step_vs_torch.py --setup tiny --cap avx2 --rounds 1

It needs the ``parity`` extra. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from process_turns import (
    add_turn_options,
    answer,
    begin_report,
    by_task,
    measure,
    medians,
    new_cache,
    peaks_while_compiling,
    prepare_sides,
    print_table,
    side_words,
    take_turns,
)
from processor_class import processor, side_environment, usable_cores, versions
from product_rates import limit_words, measured_limits
from step_setups import Setup, add_setup_options, chosen_setup, network_config

OURS, EAGER, COMPILED = "pinxit", "torch eager", "torch compiled"
SIDES = (OURS, EAGER, COMPILED)
PREPARE = "inputs"
"""The side that writes weights and inputs for the others."""
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01
SAMPLING, TRAINING = "sampling", "training step"
LOSSES = 3
"""Training steps whose losses are compared."""
Tasks = dict[str, Callable[[], Any]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_setup_options(parser)
    add_turn_options(parser, seconds=3.0)
    parser.add_argument("--steps", type=int, help="Euler steps of sampling, instead of the setup's")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--least", type=int, default=3, help="least number of measured calls")
    parser.add_argument("--warming", type=int, default=2, help="calls before those that count")
    parser.add_argument("--no_limits", action="store_true", help="skip the rates of products")
    args = parser.parse_args()
    if args.amp and args.cap:
        parser.error(
            "--amp with --cap: torch's bfloat16 products need AVX-512, and without it oneDNN "
            "computes them by a reference program; give one of the two options"
        )
    return args


def write_inputs(setup: Setup, config: Any, folder: Path) -> None:
    """Writes the inputs, our weights, and the same weights as a file of diffusers' class."""
    import jax
    import numpy as np
    from safetensors.numpy import save_file

    from pinxit.flow.time import time_grid
    from pinxit.models.diffusers_prx import prx_config, to_prx
    from pinxit.models.transformer import init_params

    rng = np.random.default_rng(0)
    shape = (setup.batch, setup.grid, setup.grid, setup.channels)
    lengths = rng.integers(2, setup.text + 1, (setup.batch, 1))
    np.savez(
        folder / "inputs.npz",
        x_t=rng.normal(size=shape).astype(np.float32),
        target=rng.normal(size=shape).astype(np.float32),
        t=rng.uniform(size=setup.batch).astype(np.float32),
        tokens=rng.normal(size=(setup.batch, setup.text, setup.context)).astype(np.float32),
        mask=np.arange(setup.text)[None, :] < lengths,
        times=np.asarray(time_grid(setup.steps), np.float32),
    )
    rng = np.random.default_rng(1)  # fresh parameters start silent, so noise is added
    params = jax.tree.map(
        lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32),
        init_params(config, jax.random.key(0)),
    )
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
    save_file(leaves, folder / "ours.safetensors")
    save_file(to_prx(params, config), folder / "theirs.safetensors")
    shape_of_class = {k: v for k, v in prx_config(config).items() if not k.startswith("_")}
    (folder / "config.json").write_text(json.dumps(shape_of_class))


def ours(config: Any, inputs: dict[str, Any], folder: Path) -> Tasks:
    """Returns functions that sample and train once with our network, and wait for it."""
    import jax
    import jax.numpy as jnp
    import optax
    from safetensors import safe_open

    from pinxit.arrays import Conditioning
    from pinxit.callers_thread import run_in_callers_thread
    from pinxit.flow.solvers import euler
    from pinxit.free_memory import return_after_compiling
    from pinxit.models.sampling_config import for_sampling
    from pinxit.models.transformer import abstract, apply

    run_in_callers_thread()
    return_after_compiling()
    structure = jax.tree.structure(abstract(config)[1])
    with safe_open(folder / "ours.safetensors", "np") as file:
        leaves = [jnp.array(file.get_tensor(str(i))) for i in range(structure.num_leaves)]
    params = jax.tree.unflatten(structure, leaves)
    x_t, target, t = (jnp.asarray(inputs[name]) for name in ("x_t", "target", "t"))
    conditioning = Conditioning(
        tokens=jnp.asarray(inputs["tokens"]), mask=jnp.asarray(inputs["mask"])
    )
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any) -> tuple[Any, Any, Any]:
        def loss_of(params: Any) -> Any:
            return jnp.mean(jnp.square(apply(config, params, x_t, t, conditioning) - target))

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    @jax.jit
    def sample(params: Any) -> Any:
        velocity_fn = functools.partial(apply, for_sampling(config), params)
        return euler(velocity_fn, x_t, inputs["times"], conditioning)

    initial = jax.jit(optimizer.init)
    carry = [params, None]

    def train() -> float:
        state = initial(carry[0]) if carry[1] is None else carry[1]
        carry[0], carry[1], loss = step(carry[0], state)
        return float(loss)

    return {SAMPLING: lambda: jax.device_get(sample(carry[0])), TRAINING: train}


def theirs(args: argparse.Namespace, inputs: dict[str, Any], folder: Path) -> Tasks:
    """Returns the same functions with torch. Sampled latents have our layout."""
    import torch
    from diffusers.models.transformers.transformer_prx import PRXTransformer2DModel
    from safetensors.torch import load_file

    torch.set_num_threads(usable_cores())
    model = PRXTransformer2DModel(**json.loads((folder / "config.json").read_text()))
    model.load_state_dict(load_file(folder / "theirs.safetensors"))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    network = torch.compile(model) if args.side == COMPILED else model
    grids = [inputs[name].transpose(0, 3, 1, 2).copy() for name in ("x_t", "target")]
    x_t, target = (torch.from_numpy(grid) for grid in grids)
    t, tokens, mask = (torch.from_numpy(inputs[name]) for name in ("t", "tokens", "mask"))

    def velocity(x: Any, t: Any) -> Any:
        context = torch.autocast("cpu", torch.bfloat16) if args.amp else nullcontext()
        with context:
            out = network(x, t, tokens, attention_mask=mask, return_dict=False)[0]
        return out.float()

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = (velocity(x_t, t) - target).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def sample() -> Any:
        times = inputs["times"].tolist()
        with torch.no_grad():
            x = x_t
            for now, then in itertools.pairwise(times):
                x = x + (then - now) * velocity(x, torch.full_like(t, now))
        return x.numpy().transpose(0, 2, 3, 1)

    return {SAMPLING: sample, TRAINING: train}


def measure_side(args: argparse.Namespace) -> None:
    """Measures one side in this process, or writes the inputs of all sides."""
    import numpy as np

    setup = setup_of(args)
    config = network_config(setup, args) if args.side in (PREPARE, OURS) else None
    if args.side == PREPARE:
        write_inputs(setup, config, args.folder)
        return answer({})
    with np.load(args.folder / "inputs.npz") as file:
        inputs = dict(file)
    if args.side == OURS:
        tasks = ours(config, inputs, args.folder)
    else:
        tasks = theirs(args, inputs, args.folder)
    np.save(args.folder / f"{args.side}.npy", tasks[SAMPLING]())
    how = {"seconds": args.seconds, "least": args.least, "warming": args.warming}
    figures = {SAMPLING: measure(tasks[SAMPLING], **how)}
    losses = [tasks[TRAINING]() for _ in range(LOSSES)]
    figures[TRAINING] = measure(tasks[TRAINING], **how | {"warming": 0})
    return answer(figures, losses=losses)


def setup_of(args: argparse.Namespace) -> Setup:
    """Returns the chosen setup, with the options' number of sampling steps."""
    setup = chosen_setup(args)
    return setup if args.steps is None else Setup(**{**vars(setup), "steps": args.steps})


def differences(answers: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
    """Returns the largest difference of each torch side's latents and first losses from ours."""
    import numpy as np

    result: dict[str, Any] = {}
    if any("failure" in each for each in answers.get(OURS, [{"failure": ""}])):
        return result
    mine = np.load(folder / f"{OURS}.npy")
    for side in answers:
        if side == OURS or "failure" in answers[side][0]:
            continue
        latents = np.abs(np.load(folder / f"{side}.npy") - mine).max()
        pairs = zip(answers[side][0]["losses"], answers[OURS][0]["losses"], strict=True)
        losses = max(abs(a - b) for a, b in pairs)
        result[side] = {"latents": float(latents), "losses": losses}
    return result


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides in turns, and the limits; returns the results."""
    environment = side_environment(args.cap, amp=args.amp)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failure = "the inputs could not be written"
        prepare_sides(__file__, PREPARE, folder, environment, failure=failure)
        environment = new_cache(environment, folder)
        commands = {side: side_words(__file__, side, folder) for side in args.sides}
        compiling = peaks_while_compiling(commands, OURS, environment)
        answers = take_turns(commands, rounds=args.rounds, environment=environment)
        difference = differences(answers, folder)
    sides = {side: medians(each) for side, each in answers.items()}
    results = {
        "tasks": by_task(sides, (SAMPLING, TRAINING), compiling=compiling),
        "differences": difference,
        "about": setup_of(args).words() + (", bfloat16" if args.amp else ""),
        "processor": processor(args.cap),
        "versions": versions(),
    }
    if not args.no_limits:
        results["limits"] = measured_limits(limit_words(args), args, environment)
    return results


def main() -> None:
    args = arguments()
    if args.side:
        return measure_side(args)
    results = compare(args)
    begin_report(results, args.json)
    for side, each in results["differences"].items():
        print(f"largest difference of {side} from {OURS}: latents {each['latents']:.1e}, "
              f"losses {each['losses']:.1e}")  # fmt: skip
    print_table(results["tasks"], OURS)
    print_shares(results)


def print_shares(results: dict[str, Any]) -> None:
    """Prints the limits of a training step, and the share of each that our step reaches."""
    wall = results["tasks"].get(TRAINING, {}).get(OURS, {}).get("wall")
    limits = results.get("limits", {})
    if wall is None or "cores" not in limits:
        return
    rate, cores, own = limits["rate"] / 1e9, limits["cores"], limits["own"].get("jax")
    print(f"limit of the cores for a training step, at {rate:.0f} GFLOP/s: {cores:.4f} s, "
          f"reached {cores / wall:.0%}")  # fmt: skip
    if own:
        print(f"limit of our products as they are: {own:.4f} s, reached {own / wall:.0%}")


if __name__ == "__main__":
    main()
