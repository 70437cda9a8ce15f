"""What a compiled GPU step moves: a floor of its time, where the compiler gives no estimates.

XLA's GPU compiler says nothing of time. What can be read off its program is the memory traffic of
every kernel: the arrays it reads and writes. Kernels run one after the other, so a step takes about

    operations / (peak * MATMUL_SHARE) + bytes of other kernels / (bandwidth * BANDWIDTH_SHARE)

with the two shares typical of large matrix products and of streaming kernels. Nothing here has been
fitted to a measurement: take it for the order of magnitude.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from pinxit.plan.hlo import OPCODE, Instruction, Module, parse
from pinxit.plan.tpu_cycles import collective

MATMUL_SHARE = 0.6
"""Of the peak that matrix products reach: an assumption."""
BANDWIDTH_SHARE = 0.8
"""Of the memory's bandwidth that other kernels reach: an assumption."""
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
        "call", "async-done", "copy-done", "partition-id", "replica-id", "after-all")  # fmt: skip
PRODUCTS = re.compile(r"custom_call_target=\"__(?:cublas|cudnn|triton_gemm)")
OPERANDS = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Traffic:
    """Bytes that one device moves in one step."""

    other_bytes: float
    """By kernels that are no matrix products and no convolutions."""
    kernels: float
    """Launches."""
    collective_bytes: dict[str, float]
    """Sent to other devices, by collective."""


def roofline(text: str) -> Traffic:
    """Traffic of a compiled program, from its text."""
    module = parse(text)
    sizes = {one.name: one.bytes for part in module.computations.values() for one in part}
    other = kernels = 0.0
    sent: dict[str, float] = defaultdict(float)
    for instruction, times in module.walk():
        kind, moved = collective(instruction, module)
        if kind:
            sent[kind] += times * moved
            continue
        if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
            continue
        size = times * traffic(instruction, module, sizes)
        kernels += times
        if not is_product(instruction, module):
            other += size
    return Traffic(other, kernels, dict(sent))


def operands(instruction: Instruction) -> list[str]:
    """Names of what an instruction is given, in order."""
    found = OPCODE.search(instruction.text)
    inside = instruction.text[found.end() :] if found else ""
    return OPERANDS.findall(inside.partition(")")[0])


def traffic(instruction: Instruction, module: Module, sizes: dict[str, int]) -> float:
    """Bytes that one kernel reads and writes.

    Of an array that it only takes a slice of, the slice; of one that it changes a slice of, in
    place, the slice.
    """
    given = operands(instruction)
    inner = [one for name in instruction.called("calls") for one in module.computations[name]]
    if not inner:
        inner, parameters = [instruction], {name: name for name in given}
    else:
        numbered = {int(one.text.split("parameter(")[1].split(")")[0]): one.name
                    for one in inner if one.opcode == "parameter"}  # fmt: skip
        parameters = {name: numbered.get(i, "") for i, name in enumerate(given)}
    written = float(instruction.bytes)
    for one in inner:
        if one.opcode == "dynamic-update-slice":
            written -= one.bytes - sizes.get(operands(one)[1], 0)
    read = sum(
        _read(parameters[name], sizes.get(name, 0), inner, sizes) for name in dict.fromkeys(given)
    )
    return max(0.0, written) + read


def _read(name: str, size: int, inner: list[Instruction], sizes: dict[str, int]) -> float:
    """Bytes of a parameter that a kernel reads."""
    taken = 0
    for one in inner:
        given = operands(one)
        if name not in given:
            continue
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            taken += one.bytes
        elif not (one.opcode == "dynamic-update-slice" and given[0] == name):
            return size
    return min(taken, size)


def is_product(instruction: Instruction, module: Module) -> bool:
    """Whether a kernel computes a matrix product or a convolution."""
    if instruction.opcode in ("dot", "convolution") or PRODUCTS.search(instruction.text):
        return True
    if instruction.opcode != "fusion":
        return False
    return any(
        inner.opcode in ("dot", "convolution")
        for name in instruction.called("calls")
        for inner in module.computations.get(name, [])
    )
