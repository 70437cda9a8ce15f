"""Finds the largest batches of `large` at 256 x 256, with the compilers of three machines' vendors.

``python benchmarks/memory_table.py`` prints the table of docs/plan.md for a TPU v3-8, an A100 and a
V100, and ``--write`` writes it into the page. It compiles every cell that is not in the cache,
which takes minutes for each. It needs no such hardware, only the two compilers
(``pinxit plan --install-compiler tpu`` and ``cuda12``). With the VAE, latents of 32 x 32 x 4 are
prepared, and CLIP-L runs in each step. Without it, the model has pixels in patches of 8, and
CLIP-L. "Claimed" is the batch that is usually quoted for such machines.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marked_table import write_table

from pinxit.plan.compile_cache import Compiled, compile_step
from pinxit.plan.memory import Largest, largest_batch
from pinxit.plan.plan import planned
from pinxit.plan.step_time import step_time
from pinxit.plan.targets import GIB, get_target
from pinxit.recipes import coyo_256
from pinxit.train.settings import ModelConfig, TrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "plan.md"
BEGIN, END = "<!-- memory table -->\n", "<!-- end of the memory table -->"


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    target: str
    vae: bool
    claimed: str
    start: dict[str, int]
    """Policy to where the search begins."""


CELLS = (
    Cell("tpu-v3-8", True, "256-512", {"full": 4096, "dots": 512}),
    Cell("tpu-v3-8", False, "64-128", {"full": 512, "dots": 128}),
    Cell("a100-40", True, "32-64", {"full": 1024, "dots": 256}),
    Cell("a100-40", False, "8-16", {"full": 256, "dots": 48}),
    Cell("v100-16", True, "16-32", {"full": 96, "dots": 32}),
    Cell("v100-16", False, "4-8", {"full": 16, "dots": 4}),
)


def settings(vae: bool) -> TrainConfig:
    """The recipe, on latents or on pixels."""
    model = ModelConfig(preset="large", use_stable_vae=vae, remat="full")
    config = replace(coyo_256(), model=model, gradient_accumulation_steps=1)
    return planned(config.resolved())


def said(what: str, seconds: float, begun: set[str] = set()) -> None:  # noqa: B006
    """A line for each compile."""
    if what not in begun:
        begun.add(what)
        print(f"compiling {what}", file=sys.stderr, flush=True)


def search(cell: Cell, remat: str) -> Largest:
    """The largest batch of a cell with one policy."""

    def compile_one(config: TrainConfig) -> Compiled:
        what = f"{cell.target}, batch {config.batch_size}, remat {remat}"
        return compile_step(config, cell.target, what=what, on_progress=said)

    config, target = settings(cell.vae), get_target(cell.target)
    return largest_batch(config, remat, target, compile_one, start=cell.start[remat])


def row(cell: Cell, remat: str) -> str:
    """A line of the table."""
    found = search(cell, remat)
    kind = "with VAE" if cell.vae else "pixels"
    if found.compiled is None or found.memory is None:
        return f"| {cell.target} | {kind} | {cell.claimed} | {remat} | none | | | |"
    result: dict[str, Any] = found.compiled.result
    time = step_time(result, get_target(cell.target))
    rate = f"{found.batch / time.seconds:.0f}" if time else ""
    mesh = ",".join(f"{name}={size}" for name, size in result["mesh"].items() if size > 1)
    memory = f"{found.memory.peak / GIB:.1f} of {found.memory.limit / GIB:.1f}"
    about = f"{result['dtype']}{', ' + mesh if mesh else ''}"
    return (
        f"| {cell.target} | {kind} | {cell.claimed} | {remat} | **{found.batch}** | {memory} | "
        f"{about} | {rate} |"
    )


def main() -> None:
    """Prints the table, or writes it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--policies", nargs="+", default=["full"])
    parser.add_argument("--targets", nargs="+", default=sorted({c.target for c in CELLS}))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "| machine | | claimed | remat | largest batch | GiB of each device | arithmetic, mesh | "
        "images/s before the correction |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for cell in CELLS:
        for remat in options.policies if cell.target in options.targets else ():
            lines.append(row(cell, remat))
            print(lines[-1], flush=True)
    if options.write:
        write_table(PAGE, BEGIN, END, lines)


if __name__ == "__main__":
    main()
