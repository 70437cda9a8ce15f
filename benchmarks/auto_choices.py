"""Shows what ``auto`` chooses for the recipes on the mission's machines, and whether it fits.

``python benchmarks/auto_choices.py`` prints a row for each machine and recipe: the choice, its
estimated memory, and the memory and speed by the vendor's compiler, of prepared and streamed data.
Looped blocks are compiled as they are. Unrolled ones are compiled at depths of 2 and 4, and memory
and time, which are linear in the depth, extended to the recipe's depth; ``--whole`` compiles all
blocks (up to an hour on a small machine). ``--estimates`` compiles nothing and takes a minute.
``--write`` writes the table into docs/plan.md. Results are cached, so a stopped table continues.
It needs both compilers (``pinxit plan --install-compiler tpu`` and ``cuda12``), but no such
hardware.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marked_table import write_table

from pinxit import config as configuration
from pinxit.plan.compile_cache import compile_step, worker_environment
from pinxit.plan.memory import memory_of
from pinxit.plan.plan import planned
from pinxit.plan.step_time import prepared_step_time, step_time
from pinxit.plan.targets import GIB, get_target
from pinxit.plan.vendor_compilers import find_compiler
from pinxit.recipes import RECIPES
from pinxit.train.settings import TrainConfig

TARGETS = ("tpu-v3-8", "a100-40", "a100-80", "v100-16", "v100-32", "h100")
NAMES = ("coyo_256", "coyo_256_pixels", "coyo_512")
DEPTHS = (2, 4)
"""Depths that are compiled in place of many unrolled blocks."""
PAGE = Path(__file__).parents[1] / "docs" / "plan.md"
BEGIN, END = "<!-- automatic choices -->\n", "<!-- end of the automatic choices -->"
HEAD = (
    "| machine | recipe | remat | blocks | pieces | estimate, GiB | compiler, GiB | images/s, "
    "prepared | images/s, streamed |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Figures:
    """What the compiler says of one step."""

    peak: float
    """Bytes of each device, for prepared data."""
    prepared: float
    """Seconds of a step on prepared data, in the middle of the range."""
    streamed: float
    """Seconds of a step on streamed data."""


def choices(target: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the choice for each recipe, made in a process that can describe the devices."""
    platform = get_target(target).platform
    path = find_compiler(platform, target=target)
    command = [sys.executable, __file__, "--choose", target, "--recipes", *names]
    done = subprocess.run(
        command, env=worker_environment(platform, path), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def choose(target: str, names: Sequence[str]) -> None:
    """Prints the choices as JSON. The devices of `target` must be describable here."""
    from pinxit.plan.compile_worker import described, usable
    from pinxit.train.auto_settings import abstract_parts, choose_settings

    machine, answers = get_target(target), []
    devices = described(machine)
    for name in names:
        config = planned(RECIPES[name]().resolved())
        parts = abstract_parts(config, devices, memory_bytes=machine.chip.memory)
        choice = choose_settings(config, parts, memory=usable(machine))
        mesh = ",".join(f"{axis}={size}" for axis, size in parts.mesh.shape.items())
        about = {"fits": choice.fits, "line": choice.line, "depth": parts.model.depth}
        answers.append(choice.to_json() | about | {"mesh": mesh})
    print(json.dumps(answers))


def figures(config: TrainConfig, target: str) -> Figures:
    """Compiles the step and the encoding of a stream's images, and returns what they take."""
    machine = get_target(target)
    streamed = compile_step(config, target)
    step = {name: value for name, value in streamed.result.items() if name != "stream"}
    alone = prepared_step_time(step, machine)
    both = step_time(streamed.result, machine)
    if alone is None or both is None:
        raise SystemExit(f"{target}: {config.name} does not compile in its memory")
    peak = memory_of(replace(streamed, result=step), machine).peak
    return Figures(peak, alone.middle, both.middle)


def at_depth(config: TrainConfig, choice: dict[str, Any], target: str, *, whole: bool) -> Figures:
    """Returns the figures at the recipe's depth, extended from `DEPTHS` if blocks are unrolled."""
    chosen = configuration.replace(config, choice["settings"] | {"mesh": choice["mesh"]})
    if whole or chosen.model.scan_blocks:
        return figures(chosen, target)
    low, high = (
        figures(replace(chosen, model=replace(chosen.model, depth=depth)), target)
        for depth in DEPTHS
    )
    times = (choice["depth"] - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])
    names = ("peak", "prepared", "streamed")
    ends = [(getattr(low, name), getattr(high, name)) for name in names]
    return Figures(*(first + times * (second - first) for first, second in ends))


def row(target: str, name: str, choice: dict[str, Any], found: Figures | None) -> str:
    """Returns a line of the table."""
    config = configuration.replace(RECIPES[name]().resolved(), choice["settings"])
    machine = get_target(target)
    blocks = "in a loop" if config.model.scan_blocks else "unrolled"
    cells = [target, f"`{name}`", config.model.remat, blocks, str(config.pieces)]
    cells += [f"{choice['needs_bytes'] / GIB:.1f} of {choice['limit_bytes'] / GIB:.0f}"]
    if found is None:
        cells += ["", "", ""]
    else:
        fits = "" if found.peak <= machine.chip.memory else " (too much)"
        cells += [f"{found.peak / GIB:.1f} of {machine.chip.memory / GIB:.1f}{fits}"]
        rates = [f"{config.batch_size / found.prepared:.0f}"]
        rates += [f"{config.batch_size / found.streamed:.0f}"]
        cells += rates
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table, or writes it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--recipes", nargs="+", default=list(NAMES))
    parser.add_argument("--estimates", action="store_true", help="compile nothing")
    parser.add_argument("--whole", action="store_true", help="compile all unrolled blocks")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--choose", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.choose:
        choose(options.choose, options.recipes)
        return
    lines = [HEAD]
    print(HEAD, flush=True)
    for target in options.targets:
        chosen = zip(options.recipes, choices(target, options.recipes), strict=True)
        for name, choice in chosen:
            config = RECIPES[name]().resolved()
            found = None
            if not options.estimates:
                found = at_depth(config, choice, target, whole=options.whole)
            lines.append(row(target, name, choice, found))
            print(lines[-1], flush=True)
    if options.write:
        write_table(PAGE, BEGIN, END, lines)


if __name__ == "__main__":
    main()
