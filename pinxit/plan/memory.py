"""Where a step's memory goes, and the largest batch that fits, by asking the compiler.

Memory is close to linear in the batch: two compiles give the line, the line names the largest batch
within the limit, and the compiler has the last word on that one and its neighbours. The TPU
compiler refuses what does not fit and says how much it wanted; GPU compilers do not look at the
card, so what they report is compared with its size less a reserve (`targets.GPU_RESERVE`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pinxit.config import replace
from pinxit.plan.compile_cache import Compiled
from pinxit.plan.targets import Target
from pinxit.train.settings import TrainConfig

POLICIES = ("none", "dots", "full")
"""Rematerialisation, from the fastest to the thriftiest."""
Compile = Callable[[TrainConfig], Compiled]


@dataclass(frozen=True)
class Memory:
    """One device's memory at the busiest moment of a step, in bytes."""

    parts: dict[str, int]
    """By part; the sum is `peak`."""
    peak: int
    limit: int
    """What a program can have."""
    fits: bool
    measured: bool = True
    """Whether the peak is that of a compiled program, not what a refused one wanted."""

    @property
    def free(self) -> int:
        """What is left; negative where it does not fit."""
        return self.limit - self.peak


def memory_of(found: Compiled, target: Target) -> Memory:
    """From what the compiler said; where it refused, from how much it wanted."""
    result = found.result
    parts = {name: int(size) for name, size in result["bytes_by_part"].items()}
    limit = int(result.get("available") or target.chip.memory)
    if found.compiles:
        peak = int(result["memory"]["peak"])
        # weights that the step does not read (a projection) are not handed to it
        unread = sum(parts.values()) - int(result["memory"]["arguments"])
        parts["encoders"] -= min(max(0, unread), parts["encoders"])
    else:
        peak = max(int(result["needed"]), limit + 1)
    parts["gradients, activations, temporaries"] = max(0, peak - sum(parts.values()))
    fits = found.compiles and peak <= limit
    return Memory(parts=parts, peak=peak, limit=limit, fits=fits, measured=found.compiles)


@dataclass(frozen=True)
class Largest:
    """The largest batch of one policy."""

    remat: str
    batch: int
    """0: not even one sample for each device fits."""
    memory: Memory | None
    """At that batch."""
    found: Compiled | None = field(repr=False)
    tried: dict[int, int] = field(default_factory=dict)
    """Batch to bytes, as the compiler said, whether it fits or not."""


def candidates(unit: int, up_to: int) -> list[int]:
    """Batches to choose from: unit times 1, 2, 3, 4, 6, 8, 12, 16 and so on."""
    found, power = [], unit
    while power <= up_to:
        found += [power, power * 3 // 2] if power > unit else [power]
        power *= 2
    return [batch for batch in sorted(set(found)) if batch <= up_to and batch % unit == 0]


def largest_batch(
    config: TrainConfig,
    remat: str,
    target: Target,
    compile_one: Compile,
    *,
    start: int | None = None,
    most: int | None = None,
) -> Largest:
    """The largest batch (of `candidates`) that fits with this rematerialisation.

    The search begins near `start` (none: eight samples for each device) and ends at `most` (none:
    4096 for each device and piece). Raises what `compile_one` raises.
    """
    unit = target.devices * config.gradient_accumulation_steps
    known: dict[int, tuple[Compiled, Memory]] = {}

    def look(batch: int) -> Memory:
        if batch not in known:
            found = compile_one(with_batch(config, batch, remat))
            known[batch] = (found, memory_of(found, target))
        return known[batch][1]

    choices = candidates(unit, most or 2**12 * unit)
    near = 8 * unit if start is None else start
    best = _search(choices, look, min(range(len(choices)), key=lambda i: abs(choices[i] - near)))
    tried = {batch: memory.peak for batch, (_, memory) in sorted(known.items())}
    if best is None:
        return Largest(remat, 0, None, None, tried)
    return Largest(remat, best, known[best][1], known[best][0], tried)


def _search(choices: list[int], look: Callable[[int], Memory], start: int) -> int | None:
    """The last of `choices` that fits, if memory grows with the batch."""
    low, high = -1, len(choices)  # the last known to fit, the first known not to
    at = start
    points: list[tuple[int, int]] = []
    while low + 1 < high:
        at = min(max(at, low + 1), high - 1)
        memory = look(choices[at])
        low, high = (at, high) if memory.fits else (low, at)
        if memory.measured:
            points.append((choices[at], memory.peak))
        at = _next(choices, points, memory.limit, low, high)
    return choices[low] if low >= 0 else None


def _next(
    choices: list[int], points: list[tuple[int, int]], limit: int, low: int, high: int
) -> int:
    """Where to look next: where the line through the last two points meets the limit."""
    if len(points) < 2:
        return low + 2 if points and low >= 0 else (low + high) // 2
    (b0, m0), (b1, m1) = sorted(points)[-2:]
    slope = (m1 - m0) / (b1 - b0)
    if slope <= 0:
        return low + 2
    batch = b1 + (limit - m1) / slope
    reached = [i for i, choice in enumerate(choices) if choice <= batch * 1.02]
    return max(reached, default=low + 1)


def with_batch(config: TrainConfig, batch: int, remat: str) -> TrainConfig:
    """The settings with another batch and policy; chunks of encoders are kept where they divide.

    Policies that recompute are looked at with blocks in a loop, which compiles in a fraction of the
    time and takes no more memory; without recomputing, a loop would take a multiple.
    """
    changes: dict[str, Any] = {"batch_size": batch, "model.remat": remat}
    if remat != "none":
        changes["model.scan_blocks"] = True
    chunk = getattr(config, "encoder_chunk", 0)
    if chunk and batch // config.gradient_accumulation_steps % chunk:
        changes["encoder_chunk"] = 0
    return replace(config, changes)
