"""Memory of a training step by part, and the largest batch that fits, according to the compiler.

Memory is close to linear in the batch. Two compilations give a line, the line predicts the largest
batch within the limit, and compiling that batch and its neighbours confirms it. The TPU compiler
refuses a program that does not fit and reports how much memory it needs. GPU compilers do not check
the card's memory, so their peak is compared with its size less a reserve (`targets.GPU_RESERVE`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pinxit.config import replace
from pinxit.plan.compile_cache import Compiled
from pinxit.plan.targets import Target
from pinxit.train.settings import AUTO, TrainConfig

Compile = Callable[[TrainConfig], Compiled]


@dataclass(frozen=True)
class Memory:
    """The peak memory of one device during a step, in bytes."""

    parts: dict[str, int]
    """The memory by part; the sum is `peak`."""
    peak: int
    limit: int
    """The memory that a program can use."""
    fits: bool
    measured: bool = True
    """Whether the peak is a compiled program's, rather than the need of a refused one."""

    @property
    def free(self) -> int:
        """The memory that remains; negative if the step does not fit."""
        return self.limit - self.peak


def memory_of(compiled: Compiled, target: Target) -> Memory:
    """Splits the peak by part: the compiler's own, or the need of a program that it refused.

    The compiler knows its program alone. Arrays that the program does not read, such as encoders
    beside the step, occupy the device all the same and are added.
    """
    result = compiled.result
    parts = {name: int(size) for name, size in result["bytes_by_part"].items()}
    unread = int(result["unread_bytes"])
    limit = int(result.get("available") or target.chip.memory)
    if compiled.compiles:
        peak = int(result["memory"]["peak"]) + unread
    else:
        peak = max(int(result["needed"]), limit + 1) + unread
    parts["gradients, activations, temporaries"] = max(0, peak - sum(parts.values()))
    if stream := result.get("stream"):
        needed = int(stream["memory"]["peak"] if stream["fits"] else stream["needed"])
        beside = max(0, needed - int(stream["weights"]))  # which are among the encoders
        parts["autoencoder of the stream"] = beside
        peak += beside
    fits = compiled.compiles and peak <= limit
    return Memory(parts=parts, peak=peak, limit=limit, fits=fits, measured=compiled.compiles)


@dataclass(frozen=True)
class Largest:
    """The largest batch of one rematerialisation policy."""

    remat: str
    batch: int
    """The batch size; 0 if not even one sample for each device fits."""
    memory: Memory | None
    """The memory at that batch."""
    compiled: Compiled | None = field(repr=False)
    tried: dict[int, int] = field(default_factory=dict)
    """The peak in bytes of each batch that was compiled, whether it fits or not."""


def candidates(unit: int, up_to: int) -> list[int]:
    """Returns the batches to search: `unit` times 1, 2, 3, 4, 6, 8, 12, 16 and so on."""
    batches, power = [], unit
    while power <= up_to:
        batches += [power, power * 3 // 2] if power > unit else [power]
        power *= 2
    return [batch for batch in sorted(set(batches)) if batch <= up_to and batch % unit == 0]


def largest_batch(
    config: TrainConfig,
    remat: str,
    target: Target,
    compile_one: Compile,
    *,
    start: int | None = None,
    most: int | None = None,
) -> Largest:
    """Finds the largest batch of `candidates` that fits with the policy `remat`.

    The search begins near `start`, by default eight samples for each device, and ends at `most`, by
    default 4096 for each device and accumulation step. Errors of `compile_one` are passed on.
    """
    unit = target.devices * config.pieces
    results: dict[int, tuple[Compiled, Memory]] = {}

    def memory_at(batch: int) -> Memory:
        if batch not in results:
            compiled = compile_one(with_batch(config, batch, remat))
            results[batch] = (compiled, memory_of(compiled, target))
        return results[batch][1]

    choices = candidates(unit, most or 2**12 * unit)
    first = 8 * unit if start is None else start
    best = _search(
        choices, memory_at, min(range(len(choices)), key=lambda i: abs(choices[i] - first))
    )
    tried = {batch: memory.peak for batch, (_, memory) in sorted(results.items())}
    if best is None:
        return Largest(remat, 0, None, None, tried)
    return Largest(remat, best, results[best][1], results[best][0], tried)


def _search(choices: list[int], memory_at: Callable[[int], Memory], start: int) -> int | None:
    """Returns the largest of `choices` that fits; memory must grow with the batch."""
    low, high = -1, len(choices)  # the last index known to fit, and the first known not to fit
    index = start
    points: list[tuple[int, int]] = []
    while low + 1 < high:
        index = min(max(index, low + 1), high - 1)
        memory = memory_at(choices[index])
        low, high = (index, high) if memory.fits else (low, index)
        if memory.measured:
            points.append((choices[index], memory.peak))
        index = _next(choices, points, memory.limit, low, high)
    return choices[low] if low >= 0 else None


def _next(
    choices: list[int], points: list[tuple[int, int]], limit: int, low: int, high: int
) -> int:
    """Returns the next index: where the line through the last two points meets the limit."""
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
    """Returns the settings with another batch and policy.

    ``encoder_chunk`` is set to 0 unless it divides the batch of an accumulation step. With
    recomputation, the blocks run in a loop, which compiles in a fraction of the time and takes no
    more memory. Without recomputation, a loop would take a multiple of the memory, so they are
    unrolled unless the settings say otherwise. The number of pieces is 1 unless it is set.
    """
    changes: dict[str, Any] = {"batch_size": batch, "model.remat": remat}
    changes["gradient_accumulation_steps"] = config.pieces
    if remat != "none" or config.model.scan_blocks == AUTO:
        changes["model.scan_blocks"] = remat != "none"
    chunk = getattr(config, "encoder_chunk", 0)
    if chunk and batch // config.pieces % chunk:
        changes["encoder_chunk"] = 0
    return replace(config, changes)
