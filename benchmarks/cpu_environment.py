"""Compares training steps on a CPU with and without Pinxit's settings of the process.

They are in `pinxit.cli.xla_environment` and `pinxit.callers_thread`. Processes that differ only in
these settings train the demo's network on the same rows, taking turns of a few steps each. Each
process keeps the memory pages it was allocated, which alone makes it some percent faster or slower,
so there are several processes of each kind. The script prints medians and the ratio to the tuned
environment; above 1, the tuned one is faster.

    python benchmarks/cpu_environment.py --processes 3 --rounds 8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

from pinxit.callers_thread import run_in_callers_thread
from pinxit.cli.xla_environment import CPU_MALLOC, NO_YNN, OFF, prepare_environment

KINDS: dict[str, dict[str, str]] = {
    "tuned": {**CPU_MALLOC, "XLA_FLAGS": NO_YNN},
    "thread pool": {**CPU_MALLOC, "XLA_FLAGS": NO_YNN},
    "heap alone": dict(CPU_MALLOC),
    "no YNN alone": {"XLA_FLAGS": NO_YNN},
    "nothing": {},
}
POOL = ("thread pool", "nothing")
"""Kinds that run programs in JAX's thread pool, and not in the caller's thread."""
BATCH = 16


def step_function() -> Any:
    """One training step of the demo's network on random latents, which waits for its loss."""
    import jax
    import numpy as np

    from pinxit.recipes.scenes import scenes
    from pinxit.train.build import build, build_state, build_step, text_columns_for

    config = scenes().resolved()
    parts = build(config)
    state = build_state(config, parts)
    text = text_columns_for(config, parts)
    step = build_step(config, parts, state, text)
    ids = parts.text_encoder.tokenize(["a small red house on the left under a full moon"] * BATCH)
    ids = ids[:, :48]
    side = config.image_size // parts.autoencoder.stats.downsample
    rng = np.random.default_rng(0)
    shape = (BATCH, side, side, parts.model.in_channels)
    raw = {
        "latents": rng.normal(size=shape).astype(np.float32),
        "token_ids": ids,
        "index": np.arange(BATCH),
    }
    frozen = text.frozen(raw)
    carry = [state]

    def run() -> None:
        carry[0], metrics = step(carry[0], frozen, raw)
        jax.block_until_ready(metrics["loss"])

    return run


def child() -> None:
    """Reads numbers of steps, writes wall and CPU milliseconds per step."""
    run = step_function()
    run()
    print("ready", flush=True)
    for line in sys.stdin:
        steps = int(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            run()
        times = (time.perf_counter() - wall, time.process_time() - cpu)
        print(*(1000 * value / steps for value in times), flush=True)


def start(kind: str) -> subprocess.Popen[str]:
    """A child with the environment of that kind, compiled and waiting."""
    ours = {*CPU_MALLOC, "XLA_FLAGS"}
    environ = {k: v for k, v in os.environ.items() if k not in ours} | KINDS[kind] | {OFF: "1"}
    command = [sys.executable, __file__, "--child", *(["--thread-pool"] if kind in POOL else [])]
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        if process.poll() is not None:
            raise SystemExit(f"{kind}: the child process exited with code {process.returncode}")
    return process


def ask(process: subprocess.Popen[str], steps: int) -> tuple[float, float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    wall, cpu = map(float, process.stdout.readline().split())
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=3, help="processes of each kind")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="steps in one turn")
    for option in ("--child", "--thread-pool"):
        parser.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    prepare_environment()  # compiled once for each kind of flags, not once for each process
    if args.child:
        if not args.thread_pool:
            run_in_callers_thread()
        return child()
    processes = [(kind, start(kind)) for _ in range(args.processes) for kind in KINDS]
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for turn in range(args.rounds + 1):
        for kind, process in processes:
            measured = ask(process, args.steps)
            if turn:  # the first one warms up
                times[kind].append(measured)
    for _, process in processes:
        process.kill()
    print(f"{'':14} {'wall ms':>9} {'ratio':>6} {'CPU ms':>9} {'ratio':>6}")
    tuned = [median(pair[i] for pair in times["tuned"]) for i in (0, 1)]
    for kind, measured in times.items():
        wall, cpu = (median(pair[i] for pair in measured) for i in (0, 1))
        print(f"{kind:14} {wall:9.1f} {wall / tuned[0]:6.2f} {cpu:9.1f} {cpu / tuned[1]:6.2f}")


if __name__ == "__main__":
    main()
