"""The text of a compiled program, taken apart: computations, instructions, loops and their lengths.

::

    ENTRY %main (p: f32[8]) -> f32[8] {
      %fusion.1 = f32[8]{0} fusion(%p), calls=%fused, metadata={op_name="jit(step)/dot"},
          backend_config={"estimated_cycles":"1200"}
      ROOT %while.2 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%body, ...
    }

`walk` visits every instruction that the device runs, with how many times it does. A fusion is one
instruction; what is inside it is not visited.
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
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    text: str
    """From the type on."""
    root: bool = False

    @cached_property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it gives none."""
        found = CYCLES.search(self.text)
        return int(found[1]) if found else 0

    @cached_property
    def op_name(self) -> str:
        """Where it comes from: ``jit(step)/transpose(jvp(...))/dot_general``."""
        found = OP_NAME.search(self.text)
        return found[1] if found else ""

    @cached_property
    def type(self) -> str:
        """The type of the result, as text."""
        found = OPCODE.search(self.text)
        return self.text[: found.start()] if found else self.text

    @property
    def bytes(self) -> int:
        """Of the result, unpadded."""
        return sum(size for size in sizes(self.type))

    def called(self, kind: str) -> list[str]:
        """Names of the computations it calls as `kind` (body, condition, to_apply, calls)."""
        return [
            name.strip().lstrip("%")
            for found, names in CALLED.findall(self.text)
            if found == kind
            for name in names.strip("{}").split(",")
        ]


@dataclass(frozen=True)
class Module:
    """A whole program."""

    entry: str
    computations: dict[str, list[Instruction]] = field(repr=False)

    def trip_count(self, loop: Instruction) -> int | None:
        """How often a `while` turns: as the compiler noted it, or the only bound in its condition.

        None where neither is there.
        """
        if found := TRIPS.search(loop.text):
            return int(found[1])
        for name in loop.called("condition"):
            bounds = {
                int(found[1])
                for instruction in self._below(name)
                if instruction.opcode == "constant" and instruction.type.startswith("s32[]")
                if (found := CONSTANT.search(instruction.text))
            }
            if len(bounds) == 1:
                return bounds.pop()
        return None

    def _below(self, name: str) -> Iterator[Instruction]:
        """The instructions of a computation and of what its fusions hold."""
        for instruction in self.computations.get(name, []):
            yield instruction
            for inner in instruction.called("calls"):
                yield from self._below(inner)

    def walk(self) -> Iterator[tuple[Instruction, float]]:
        """Every instruction that runs, and how often; loops of unknown length count once."""
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
        """Names of the loops whose length is unknown."""
        return [
            instruction.name
            for instruction, _ in self.walk()
            if instruction.opcode == "while" and self.trip_count(instruction) is None
        ]


def parse(text: str) -> Module:
    """A program from its text (``compiled.as_text()``); `ValueError` for anything else."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line.rstrip()):
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := INSTRUCTION.match(line):
            opcode = OPCODE.search(found[3])
            current.append(
                Instruction(found[2], opcode[1] if opcode else "", found[3], bool(found[1]))
            )
    if not entry:
        raise ValueError("not the text of a compiled program: it has no ENTRY computation")
    return Module(entry, computations)


def sizes(type_text: str) -> list[int]:
    """Bytes of each array in a type's text."""
    found = []
    for kind, dimensions in SHAPE.findall(type_text):
        bits = BITS.get(kind)
        if bits is None:
            digits = re.search(r"\d+", kind)
            bits = int(digits[0]) if digits else 32
        elements = math.prod(int(d) for d in dimensions.split(",") if d)
        found.append(elements * bits // 8)
    return found
