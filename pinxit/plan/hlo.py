"""Parses the text of a compiled program: computations, instructions, loops and their lengths.

::

    ENTRY %main (p: f32[8]) -> f32[8] {
      %fusion.1 = f32[8]{0} fusion(%p), calls=%fused, metadata={op_name="jit(step)/dot"},
          backend_config={"estimated_cycles":"1200"}
      ROOT %while.2 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%body, ...
    }

`walk` yields every instruction that the device runs and how often it runs. A fusion counts as one
instruction, and the instructions inside it are not visited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
OP_NAME = re.compile(r'op_name="([^"]*)"')
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CALLED = re.compile(r"\b(body|condition|to_apply|calls|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
CONSTANT = re.compile(r"constant\((\d+)\)")
COUNTS = re.compile(r"\b(num_partitions|replica_count)=(\d+)")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    text: str
    """The line from the type on."""
    root: bool = False

    @cached_property
    def cycles(self) -> int:
        """The compiler's estimate of the cycles; 0 if it gives none."""
        match = CYCLES.search(self.text)
        return int(match[1]) if match else 0

    @cached_property
    def op_name(self) -> str:
        """The traced operation it comes from: ``jit(step)/transpose(jvp(...))/dot_general``."""
        match = OP_NAME.search(self.text)
        return match[1] if match else ""

    @cached_property
    def type(self) -> str:
        """The type of the result, as text."""
        match = OPCODE.search(self.text)
        return self.text[: match.start()] if match else self.text

    @property
    def bytes(self) -> int:
        """The size of the result in bytes, without padding."""
        return sum(size for size in sizes(self.type))

    def called(self, kind: str) -> list[str]:
        """Returns the computations it calls as `kind` (body, condition, to_apply, calls)."""
        return [
            name.strip().lstrip("%")
            for relation, names in CALLED.findall(self.text)
            if relation == kind
            for name in names.strip("{}").split(",")
        ]


@dataclass(frozen=True)
class Module:
    """A compiled program: its computations by name, and the entry."""

    entry: str
    computations: dict[str, list[Instruction]] = field(repr=False)
    partitions: int = 1
    """Number of devices that each replica of the program is divided among."""
    replicas: int = 1

    def trip_count(self, loop: Instruction) -> int | None:
        """Returns the number of iterations of a `while`, or None if it is unknown.

        That is the compiler's annotation, or else the only constant bound in the loop's condition.
        """
        if match := TRIPS.search(loop.text):
            return int(match[1])
        for name in loop.called("condition"):
            bounds = {
                int(match[1])
                for instruction in self._below(name)
                if instruction.opcode == "constant" and instruction.type.startswith("s32[]")
                if (match := CONSTANT.search(instruction.text))
            }
            if len(bounds) == 1:
                return bounds.pop()
        return None

    def _below(self, name: str) -> Iterator[Instruction]:
        """Yields the instructions of a computation, including those inside its fusions."""
        for instruction in self.computations.get(name, []):
            yield instruction
            for inner in instruction.called("calls"):
                yield from self._below(inner)

    def walk(self) -> Iterator[tuple[Instruction, float]]:
        """Yields every instruction that runs and how often; loops of unknown length count once."""
        yield from self._walk(self.entry, 1.0)

    def _walk(self, name: str, times: float) -> Iterator[tuple[Instruction, float]]:
        for instruction in self.computations.get(name, []):
            yield instruction, times
            if instruction.opcode == "while":
                turns = self.trip_count(instruction) or 1
                for inner in (*instruction.called("condition"), *instruction.called("body")):
                    yield from self._walk(inner, times * turns)
            elif instruction.opcode in ("call", "async-start"):
                for inner in (*instruction.called("to_apply"), *instruction.called("calls")):
                    yield from self._walk(inner, times)
            elif instruction.opcode == "conditional":
                branches = instruction.called("branch_computations")
                for inner in branches[:1]:
                    yield from self._walk(inner, times)

    def unresolved(self) -> list[str]:
        """Returns the names of the loops whose length is unknown."""
        return [
            instruction.name
            for instruction, _ in self.walk()
            if instruction.opcode == "while" and self.trip_count(instruction) is None
        ]


def parse_hlo(text: str) -> Module:
    """Parses a program's text (``compiled.as_text()``). Raises `ValueError` for other text."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line.rstrip()):
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif match := INSTRUCTION.match(line):
            opcode = OPCODE.search(match[3])
            current.append(
                Instruction(match[2], opcode[1] if opcode else "", match[3], bool(match[1]))
            )
    if not entry:
        raise ValueError("not the text of a compiled program: it has no ENTRY computation")
    heading = next((line for line in text.splitlines() if line.startswith("HloModule")), "")
    counts = {name: int(number) for name, number in COUNTS.findall(heading)}
    return Module(
        entry,
        computations,
        partitions=counts.get("num_partitions", 1),
        replicas=counts.get("replica_count", 1),
    )


def sizes(type_text: str) -> list[int]:
    """Returns the bytes of each array in a type's text."""
    totals = []
    for kind, dimensions in SHAPE.findall(type_text):
        bits = BITS.get(kind)
        if bits is None:
            digits = re.search(r"\d+", kind)
            bits = int(digits[0]) if digits else 32
        elements = math.prod(int(d) for d in dimensions.split(",") if d)
        totals.append(elements * bits // 8)
    return totals
