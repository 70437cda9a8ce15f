"""Memory traffic of a compiled GPU step, from which a lower bound of its time follows.

XLA's GPU compiler gives no time estimates, but its program shows which arrays each kernel reads and
writes. Kernels run one after the other, so a step takes about

    operations / (peak * MATMUL_SHARE) + bytes of other kernels / (bandwidth * BANDWIDTH_SHARE)

where the two shares are typical of large matrix products and of memory-bound kernels. They have not
been fitted to measurements, so the result is an order of magnitude.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from pinxit.plan.collectives import sent_bytes
from pinxit.plan.hlo import OPCODE, Instruction, Module, parse_hlo

MATMUL_SHARE = 0.6
"""Assumed fraction of the peak FLOP/s that matrix products reach."""
BANDWIDTH_SHARE = 0.8
"""Assumed fraction of the memory bandwidth that other kernels reach."""
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
        "call", "async-done", "copy-done", "partition-id", "replica-id", "after-all")  # fmt: skip
PRODUCTS = re.compile(r"custom_call_target=\"__(?:cublas|cudnn|triton_gemm)")
OPERANDS = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Traffic:
    """Bytes that one device moves in one step."""

    other_bytes: float
    """Bytes moved by kernels other than matrix products and convolutions."""
    kernels: float
    """Number of kernel launches."""
    collective_bytes: dict[str, float]
    """Bytes sent to other devices, by collective."""


def roofline(text: str) -> Traffic:
    """Sums the traffic of all kernels in a compiled program's text."""
    module = parse_hlo(text)
    sizes = {one.name: one.bytes for part in module.computations.values() for one in part}
    other = kernels = 0.0
    sent: dict[str, float] = defaultdict(float)
    for instruction, times in module.walk():
        collectives = list(sent_bytes(instruction, module))
        for kind, moved in collectives:
            sent[kind] += times * moved
        if collectives:
            continue
        if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
            continue
        size = times * traffic(instruction, module, sizes)
        kernels += times
        if not is_product(instruction, module):
            other += size
    return Traffic(other, kernels, dict(sent))


def operands(instruction: Instruction) -> list[str]:
    """Returns the names of an instruction's operands, in order."""
    opcode = OPCODE.search(instruction.text)
    inside = instruction.text[opcode.end() :] if opcode else ""
    return OPERANDS.findall(inside.partition(")")[0])


def traffic(instruction: Instruction, module: Module, sizes: dict[str, int]) -> float:
    """Returns the bytes that one kernel reads and writes.

    If the kernel reads only a slice of an array, or updates a slice in place, the slice counts.
    """
    names = operands(instruction)
    inner = [one for name in instruction.called("calls") for one in module.computations[name]]
    if not inner:
        inner, parameters = [instruction], {name: name for name in names}
    else:
        numbered = {int(one.text.split("parameter(")[1].split(")")[0]): one.name
                    for one in inner if one.opcode == "parameter"}  # fmt: skip
        parameters = {name: numbered.get(i, "") for i, name in enumerate(names)}
    written = float(instruction.bytes)
    for one in inner:
        if one.opcode == "dynamic-update-slice":
            written -= one.bytes - sizes.get(operands(one)[1], 0)
    read = sum(
        _read(parameters[name], sizes.get(name, 0), inner, sizes) for name in dict.fromkeys(names)
    )
    return max(0.0, written) + read


def _read(name: str, size: int, inner: list[Instruction], sizes: dict[str, int]) -> float:
    """Returns the bytes of one parameter that a kernel reads."""
    total = 0
    for one in inner:
        names = operands(one)
        if name not in names:
            continue
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            total += one.bytes
        elif not (one.opcode == "dynamic-update-slice" and names[0] == name):
            return size
    return min(total, size)


def is_product(instruction: Instruction, module: Module) -> bool:
    """Returns whether a kernel computes a matrix product or a convolution."""
    if instruction.opcode in ("dot", "convolution") or PRODUCTS.search(instruction.text):
        return True
    if instruction.opcode != "fusion":
        return False
    return any(
        inner.opcode in ("dot", "convolution")
        for name in instruction.called("calls")
        for inner in module.computations.get(name, [])
    )
