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

from pinxit.plan.cycles import collective
from pinxit.plan.hlo import Instruction, Module, parse

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

    product_bytes: float
    """By kernels of matrix products and convolutions."""
    other_bytes: float
    """By all other kernels."""
    kernels: float
    """Launches."""
    collective_bytes: dict[str, float]
    """Sent to other devices, by collective."""


def roofline(text: str) -> Traffic:
    """Traffic of a compiled program, from its text."""
    module = parse(text)
    shapes = {
        name: {instruction.name: instruction.bytes for instruction in instructions}
        for name, instructions in module.computations.items()
    }
    merged = {name: size for computation in shapes.values() for name, size in computation.items()}
    product = other = kernels = 0.0
    sent: dict[str, float] = defaultdict(float)
    for instruction, times in module.walk():
        kind, moved = collective(instruction, module)
        if kind:
            sent[kind] += times * moved
            continue
        if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
            continue
        size = times * (instruction.bytes + _read(instruction, merged))
        kernels += times
        if is_product(instruction, module):
            product += size
        else:
            other += size
    return Traffic(product, other, kernels, dict(sent))


def _read(instruction: Instruction, sizes: dict[str, int]) -> int:
    """Bytes of the operands, none counted for more than eight times the result: the rest of a
    larger array is not read (a slice of a stack)."""
    inside = instruction.text.split("(", 1)[-1].split("), ", 1)[0]
    limit = 8 * max(1, instruction.bytes)
    return sum(min(sizes.get(name, 0), limit) for name in set(OPERANDS.findall(inside)))


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
