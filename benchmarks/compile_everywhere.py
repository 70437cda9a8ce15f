"""Measures how long the training step takes to compile for machines that are not present.

``python benchmarks/compile_everywhere.py`` compiles the step of `coyo_256` for a TPU v3-8, a v3 pod
slice of 512 cores, 128 chips of v4, 256 of v5e and of v6e, an A100 and a V100, with ``--each``
samples for each device, and prints the seconds of compilation and the memory. ``--depths 12 24 48``
does this for one target at several depths. The seconds depend on the machine that compiles; only
their ratios matter. Cached programs are not compiled again; the table shows their original seconds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from pinxit.plan.compile_cache import compile_step
from pinxit.plan.plan import planned
from pinxit.plan.targets import GIB, get_target
from pinxit.recipes import coyo_256
from pinxit.train.settings import ModelConfig, TrainConfig

TARGETS = ("tpu-v3-8", "tpu-v3-512", "tpu-v4-256", "v5e-256", "v6e-256", "a100-40", "v100-16")


MODEL = ModelConfig(preset="large", remat="full", scan_blocks=True)
"""Blocks in a loop: what compiles in the same time at any depth."""


def said(what: str, seconds: float, begun: set[str] = set()) -> None:  # noqa: B006
    """A line for each compile."""
    if what not in begun:
        begun.add(what)
        print(f"compiling {what}", file=sys.stderr, flush=True)


def row(target: str, config: TrainConfig, depth: int | str) -> str:
    """A line of the table."""
    found = compile_step(config, target, what=f"{target}, depth {depth}", on_progress=said)
    result = found.result
    mesh = ",".join(f"{name}={size}" for name, size in result["mesh"].items() if size > 1)
    memory = f"{found.peak / GIB:.1f}" if found.peak else "does not fit"
    return (
        f"| {target} | {result['devices']} | {mesh} | {config.batch_size} | {depth} | "
        f"{result['compile_seconds']:.0f} | {memory} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--each", type=int, default=32, help="samples for each device")
    parser.add_argument("--depths", type=int, nargs="+", default=[])
    options = parser.parse_args()
    print("| target | devices | mesh | batch | depth | compile, s | GiB of each device |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for target in options.targets:
        batch = options.each * get_target(target).devices
        config = replace(coyo_256(), model=MODEL, batch_size=batch, gradient_accumulation_steps=1)
        config = planned(config.resolved())
        for depth in options.depths or [None]:
            model = config.model if depth is None else replace(config.model, depth=depth)
            changed = replace(config, model=model)
            print(row(target, changed, depth or "the preset's"), flush=True)


if __name__ == "__main__":
    main()
