"""Where a compiled step spends its time, from the compiler's own cycle estimates.

The TPU compiler writes into its program how many cycles each fusion is expected to take. `estimate`
adds them over everything that runs, loops as often as they turn, and tells by the names of the
operations which part of the step they belong to. Collectives carry no estimate: theirs are the
bytes that a device sends on a ring, ``(n - 1) / n`` of the whole for a gather or a scatter and
twice that for an all-reduce. What the estimate leaves out (waits, memory that is busy otherwise,
the host) is in the correction that `benchmarks/plan_vs_published.py` measures.

From the command line, for the text that ``compiled.as_text()`` gives::

    python -m pinxit.plan.tpu_cycles step.hlo --clock_ghz 0.94   # or .hlo.gz, as the plans keep it
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pinxit.plan.hlo import Instruction, Module, parse

PARTS = ("encoders", "forward", "backward", "recomputed", "optimizer", "ema", "other")
"""Of a step. Recomputed: parts of the forward pass that the backward pass runs again."""
COLLECTIVES = {
    "all-gather": 1.0,
    "reduce-scatter": 1.0,
    "all-to-all": 1.0,
    "collective-permute": 1.0,
    "all-reduce": 2.0,
}
"""How often the whole crosses a link, on a long ring."""
GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}|replica_groups=\[(\d+),(\d+)\]")


@dataclass(frozen=True)
class Cycles:
    """What one device does in one step."""

    by_part: dict[str, float]
    """Cycles of each of `PARTS` that has any."""
    by_operation: dict[str, float] = field(repr=False)
    """The same by operation name, the costliest first."""
    collective_bytes: dict[str, float]
    """Bytes that the device sends, by collective."""
    uncounted: dict[str, int]
    """Instructions without an estimate that do work, by opcode: how many run."""
    unresolved: list[str]
    """Loops whose length is unknown; they count once."""

    @property
    def total(self) -> float:
        """All cycles."""
        return sum(self.by_part.values())

    def seconds(self, clock: float) -> float:
        """Of the cores alone, at `clock` cycles a second."""
        return self.total / clock

    def collective_seconds(self, link: float) -> float:
        """Of the collectives, if nothing ran meanwhile and a device sends `link` bytes a second."""
        return sum(self.collective_bytes.values()) / link


def estimate(text: str) -> Cycles:
    """Cycles of a compiled program from its text. `ValueError` if the text holds no estimates."""
    module = parse(text)
    around = neighbours(module)
    by_part: dict[str, float] = defaultdict(float)
    by_operation: dict[str, float] = defaultdict(float)
    sent: dict[str, float] = defaultdict(float)
    uncounted: Counter[str] = Counter()
    for instruction, times in module.walk():
        kind, moved = collective(instruction, module)
        if kind:
            sent[kind] += times * moved
        elif instruction.cycles:
            name = instruction.op_name or around.get(instruction.name, "")
            by_part[part_of(name)] += times * instruction.cycles
            by_operation[short(instruction.op_name, part_of(name))] += times * instruction.cycles
        elif instruction.opcode in ("fusion", "convolution", "dot", "custom-call", "copy", "sort"):
            uncounted[instruction.opcode] += int(times)
    return Cycles(
        by_part={part: by_part[part] for part in PARTS if by_part[part]},
        by_operation=dict(sorted(by_operation.items(), key=lambda item: -item[1])),
        collective_bytes=dict(sent),
        uncounted=dict(uncounted),
        unresolved=module.unresolved(),
    )


def part_of(op_name: str) -> str:
    """The part of the step that an operation's name belongs to."""
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
    """The part and the last two words of an operation's name."""
    return f"{part}: {'/'.join(op_name.split('/')[-2:]) or 'copies and layouts'}"


def neighbours(module: Module) -> dict[str, str]:
    """For instructions without a name (copies, changes of layout): the name that the part with
    most cycles has in their computation, where that is the body of a loop."""
    found = {}
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
            found |= {one.name: most for one in instructions if not one.op_name}
    return found


def collective(instruction: Instruction, module: Module) -> tuple[str, float]:
    """A collective's kind and the bytes that each device sends; an empty kind for anything else."""
    opcode = instruction.opcode.removesuffix("-start")
    if opcode == "fusion":
        for name in instruction.called("calls"):
            for inner in module.computations.get(name, []):
                kind, moved = collective(inner, module)
                if kind:
                    return kind, moved
        return "", 0.0
    if opcode not in COLLECTIVES or instruction.opcode.endswith("-done"):
        return "", 0.0
    size = group_size(instruction)
    whole = _whole(instruction, opcode, size)
    return opcode, COLLECTIVES[opcode] * whole * (size - 1) / max(1, size)


def group_size(instruction: Instruction) -> int:
    """How many devices take part; 2 where the text does not say (a permutation)."""
    found = GROUPS.search(instruction.text)
    if not found:
        return 2
    return found[1].count(",") + 1 if found[1] else int(found[3])


def _whole(instruction: Instruction, opcode: str, size: int) -> float:
    """Bytes of the whole array. A started gather's type holds its input, too."""
    from pinxit.plan.hlo import sizes

    found = sizes(instruction.type)
    if not found:
        return 0.0
    if opcode == "reduce-scatter":
        return float(max(found) if instruction.opcode.endswith("-start") else sum(found) * size)
    if opcode == "all-gather" and instruction.opcode.endswith("-start"):
        return float(sum(found)) * size / (size + 1)
    return float(sum(found))


def read(path: Path) -> str:
    """A program's text, which may be gzipped."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the estimate of a program's text."""
    parser = argparse.ArgumentParser(description="Cycles of a program compiled for a TPU.")
    parser.add_argument("program", type=Path, help="HLO text, which may be gzipped")
    parser.add_argument("--clock_ghz", type=float, default=1.0, help="of the TPU's cores")
    options = parser.parse_args(argv)
    if not options.program.is_file():
        parser.error(f"there is no {options.program}; pinxit plan --json - names its program")
    clock = 1e9 * options.clock_ghz
    found = estimate(read(options.program))
    print(f"{found.total:.4g} cycles, {found.seconds(clock):.4f} s at {clock / 1e9:g} GHz")
    for part, cycles in found.by_part.items():
        print(f"  {part:12} {cycles / clock:.4f} s  {cycles / found.total:.1%}")
    print("costliest:")
    for name, cycles in list(found.by_operation.items())[:25]:
        print(f"  {cycles / clock:.4f} s  {name}")
    print(f"collectives, bytes sent: {found.collective_bytes}")
    print(f"without an estimate: {found.uncounted}; loops of unknown length: {found.unresolved}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
