"""Counts the bytes that devices send in the collectives of a compiled program.

Compilers give no time estimates for collectives, so their bytes are counted as on a ring of ``n``
devices: ``(n - 1) / n`` of the whole array for a gather or a scatter, twice that for an all-reduce,
and the whole local array for a permutation. The size ``n`` is written in four ways::

    replica_groups={{0,1,2,3},{4,5,6,7}}                             lists of devices
    replica_groups=[2,4]<=[8]                                        2 groups of 4
    replica_groups=[4,2]<=[2,4]T(1,0)                                4 groups of 2, transposed
    replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}            the axes that take part
    replica_groups=mesh['x'=8], device_ids=([8]) {'x':(2)4}          a part of an axis

Empty groups (``{}``) mean all devices. Any other text is refused, because a guessed size would make
a wrong plan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NoReturn

from pinxit.plan.hlo import Instruction, Module, sizes

COLLECTIVES = {
    "all-gather": 1.0,
    "reduce-scatter": 1.0,
    "all-to-all": 1.0,
    "ragged-all-to-all": 1.0,
    "collective-broadcast": 1.0,
    "collective-permute": 1.0,
    "all-reduce": 2.0,
}
"""Number of times the whole array crosses a link on a long ring."""
GROUPS = re.compile(r"\breplica_groups=(.*)")
LISTS = re.compile(r"\{((?:\{[\d,]*\},?)*)\}")
IOTA = re.compile(r"\[\d+,(\d+)\]<=\[[\d,]+\](?:T\([\d,]+\))?")
MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\([^()]*(?:\([\d,]*\))?\))? \{([^}]*)\}")
AXIS = re.compile(r"'([^']+)'=(\d+)")
TAKES_PART = re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")
PAIRS = re.compile(r"\bsource_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
OF_REPLICAS = ("all-gather", "all-reduce", "reduce-scatter")
"""Collectives whose groups are of replicas, each with all its partitions, unless the instruction
says ``use_global_device_ids``."""


def sent_bytes(instruction: Instruction, module: Module) -> Iterator[tuple[str, float]]:
    """Yields the kind of each collective in an instruction, and the bytes that a device sends."""
    if instruction.opcode == "fusion":
        for name in instruction.called("calls"):
            for inner in module.computations.get(name, []):
                yield from sent_bytes(inner, module)
        return
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    if kind == "collective-permute":
        yield kind, _array(instruction, 1) * _sending(instruction)
        return
    size = group_size(instruction, module)
    yield kind, COLLECTIVES[kind] * _array(instruction, size) * (size - 1) / size


def group_size(instruction: Instruction, module: Module) -> int:
    """Returns the number of devices that exchange data with each other, in the largest group.

    Raises `ValueError` if the text does not say it in a known form.
    """
    match = GROUPS.search(instruction.text)
    if match is None:
        _refuse(instruction)
    partitions = module.partitions if "channel_id=" in instruction.text else 1
    kind = instruction.opcode.removesuffix("-start")
    if kind in OF_REPLICAS and "use_global_device_ids=true" not in instruction.text:
        return partitions * _size(match[1], instruction, module.replicas)
    return _size(match[1], instruction, module.replicas * partitions)


def _size(text: str, instruction: Instruction, everything: int) -> int:
    """Returns the size of the largest group in a `replica_groups`; empty ones mean `everything`."""
    if match := LISTS.match(text):
        lengths = [len(group.split(",")) for group in re.findall(r"\{([\d,]+)\}", match[1])]
        return max(lengths, default=everything)
    if match := IOTA.match(text):
        return int(match[1])
    match = MESH.match(text)
    axes = dict(AXIS.findall(match[1])) if match else {}
    names = TAKES_PART.findall(match[2]) if match else []
    if not axes or not names or any(name not in axes for name, _ in names):
        _refuse(instruction)
    return math.prod(int(part or axes[name]) for name, part in names)


def _sending(instruction: Instruction) -> float:
    """Returns the fraction of the devices in a permutation that send to another device."""
    match = PAIRS.search(instruction.text)
    if match is None:
        _refuse(instruction)
    pairs = [pair.split(",") for pair in re.findall(r"\{([\d,]+)\}", match[1])]
    return sum(source != target for source, target in pairs) / max(1, len(pairs))


def _array(instruction: Instruction, size: int) -> float:
    """Returns the bytes of the array that is gathered, scattered, reduced or sent.

    The type of an instruction that only starts a collective includes the input, except for an
    all-reduce.
    """
    arrays, total = sizes(instruction.type), float(sum(sizes(instruction.type)))
    started = instruction.opcode.endswith("-start")
    kind = instruction.opcode.removesuffix("-start")
    if not started or kind == "all-reduce":
        return total * size if kind == "reduce-scatter" else total
    if kind == "collective-permute":  # input, output, and perhaps two flags
        return float(arrays[0])
    return total * size / (size + 1) if kind in ("all-gather", "reduce-scatter") else total / 2


def _refuse(instruction: Instruction) -> NoReturn:
    """Raises the error that names the text of the instruction."""
    text = f"{instruction.name} = {instruction.text[:400]}"
    raise ValueError(f"the devices of this collective are not written in a known form: {text}")
