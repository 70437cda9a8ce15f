"""Splits the time of a compiled TPU step by part, from the compiler's own cycle estimates.

The TPU compiler annotates each fusion with the cycles it is expected to take. `estimate` sums them
over everything that runs, including every iteration of a loop, and assigns them to parts of the
step by the names of the operations. Collectives have no cycle estimate, so the bytes that a device
sends are counted instead (`collectives.py`). The estimate leaves out waiting, memory contention and
the host. `benchmarks/plan_vs_published.py` measures a correction for them.

The module also runs as a command on the text of ``compiled.as_text()``::

    python -m pinxit.plan.tpu_cycles step.hlo --clock_ghz 0.94   # or a plan's .hlo.gz
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pinxit.plan.collectives import sent_bytes
from pinxit.plan.hlo import Module, parse_hlo

PARTS = ("encoders", "forward", "backward", "recomputed", "optimizer", "ema", "other")
"""Parts of a step. "recomputed" is the part of the forward pass that the backward pass repeats."""
WORK = ("fusion", "convolution", "dot", "custom-call", "copy", "sort")
"""Opcodes of instructions that do work, even if the compiler gives no estimate."""


@dataclass(frozen=True)
class Cycles:
    """The work of one device in one step."""

    by_part: dict[str, float]
    """Cycles of each of `PARTS` that is not empty."""
    by_operation: dict[str, float] = field(repr=False)
    """Cycles by operation name, the costliest first."""
    collective_bytes: dict[str, float]
    """Bytes that the device sends, by collective."""
    uncounted: dict[str, int]
    """Number of executed instructions that do work but have no estimate, by opcode."""
    unresolved: list[str]
    """Loops whose length is unknown; they count once."""

    @property
    def total(self) -> float:
        """The sum of the cycles of all parts."""
        return sum(self.by_part.values())

    def seconds(self, clock: float) -> float:
        """Returns the seconds of the cores alone, at `clock` cycles per second."""
        return self.total / clock

    def collective_seconds(self, link: float) -> float:
        """Returns the seconds of the collectives alone, at `link` bytes per second and device."""
        return sum(self.collective_bytes.values()) / link


def estimate(text: str) -> Cycles:
    """Sums the cycles in a compiled program's text. Raises `ValueError` for any other text."""
    module = parse_hlo(text)
    around = neighbours(module)
    by_part: dict[str, float] = defaultdict(float)
    by_operation: dict[str, float] = defaultdict(float)
    sent: dict[str, float] = defaultdict(float)
    uncounted: Counter[str] = Counter()
    for instruction, times in module.walk():
        collectives = list(sent_bytes(instruction, module))
        for kind, moved in collectives:
            sent[kind] += times * moved
        if instruction.cycles:
            name = instruction.op_name or around.get(instruction.name, "")
            by_part[part_of(name)] += times * instruction.cycles
            by_operation[short(instruction.op_name, part_of(name))] += times * instruction.cycles
        elif instruction.opcode in WORK and not collectives:
            uncounted[instruction.opcode] += int(times)
    return Cycles(
        by_part={part: by_part[part] for part in PARTS if by_part[part]},
        by_operation=dict(sorted(by_operation.items(), key=lambda item: -item[1])),
        collective_bytes=dict(sent),
        uncounted=dict(uncounted),
        unresolved=module.unresolved(),
    )


def part_of(op_name: str) -> str:
    """Returns the part of the step that an operation's name belongs to."""
    if "/encode/" in op_name or "vae_encode" in op_name or "clip_text" in op_name:
        return "encoders"
    if "/optimizer/" in op_name:
        return "optimizer"
    if "/ema/" in op_name:
        return "ema"
    if "rematted_computation" in op_name:
        return "recomputed"
    if "transpose(" in op_name:
        return "backward"
    return "forward" if "jvp(" in op_name else "other"


def short(op_name: str, part: str) -> str:
    """Returns the part and the last two components of an operation's name."""
    return f"{part}: {'/'.join(op_name.split('/')[-2:]) or 'copies and layouts'}"


def neighbours(module: Module) -> dict[str, str]:
    """Assigns an operation name to instructions without one, such as copies and layout changes.

    They get a name from the part with the most cycles in their computation, unless that is the
    entry computation.
    """
    names_by_instruction = {}
    for name, instructions in module.computations.items():
        if name == module.entry:
            continue
        cycles: dict[str, float] = defaultdict(float)
        names: dict[str, str] = {}
        for one in instructions:
            if one.op_name and one.cycles:
                cycles[part_of(one.op_name)] += one.cycles
                names[part_of(one.op_name)] = one.op_name
        if cycles:
            most = names[max(cycles, key=lambda part: cycles[part])]
            names_by_instruction |= {one.name: most for one in instructions if not one.op_name}
    return names_by_instruction


def read_program(path: Path) -> str:
    """Reads a program's text, which may be gzipped."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the estimate of a program's text."""
    parser = argparse.ArgumentParser(description="Cycles of a program compiled for a TPU.")
    parser.add_argument("program", type=Path, help="HLO text, which may be gzipped")
    parser.add_argument(
        "--clock_ghz", type=float, default=1.0, help="clock of the TPU's cores in GHz"
    )
    options = parser.parse_args(argv)
    if not options.program.is_file():
        parser.error(
            f"{options.program} does not exist; pinxit plan --json - shows the path of its program"
        )
    clock = 1e9 * options.clock_ghz
    estimated = estimate(read_program(options.program))
    print(f"{estimated.total:.4g} cycles, {estimated.seconds(clock):.4f} s at {clock / 1e9:g} GHz")
    for part, cycles in estimated.by_part.items():
        print(f"  {part:12} {cycles / clock:.4f} s  {cycles / estimated.total:.1%}")
    print("costliest operations:")
    for name, cycles in list(estimated.by_operation.items())[:25]:
        print(f"  {cycles / clock:.4f} s  {name}")
    print(f"bytes sent by collectives: {estimated.collective_bytes}")
    uncounted, unresolved = estimated.uncounted, estimated.unresolved
    print(f"instructions without an estimate: {uncounted}; loops of unknown length: {unresolved}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
