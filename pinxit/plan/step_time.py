"""Estimates a step's time from the compiler's figures, with a range.

On TPUs, the estimate is the cycles of all instructions divided by the clock, plus the bytes of the
collectives divided by the link bandwidth. Published runs took `PUBLISHED` times this estimate for
their own programs, which gives the range. On GPUs, it is operations and bytes divided by assumed
shares of the peak (`pinxit.plan.gpu_roofline`), and has not been checked against measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pinxit.plan.gpu_roofline import BANDWIDTH_SHARE, MATMUL_SHARE
from pinxit.plan.targets import Target
from pinxit.plan.tpu_cycles import PARTS

PUBLISHED = {
    "ViT-S/16, 90 epochs of ImageNet on a v3-8 (arXiv:2205.01580)": (1.06,),
    "MAE ViT-L, 800 epochs on 128 v3 cores (arXiv:2111.06377)": (0.83,),
    "DiT-XL/2, 5.7 steps/s of 256 on a v3-256 (arXiv:2212.09748)": (1.06, 1.03),
}
"""Measured over estimated time, as printed by `python benchmarks/plan_vs_published.py`. The second
and the third run are compiled with ``--scanned``, which makes slower programs than the authors'
own, so their true ratios are higher. DiT has two ratios: bfloat16 and float32 activations."""

GPU_FACTOR = 2.0
"""Guessed factor by which a GPU step may be faster or slower than its estimate."""


@dataclass(frozen=True)
class StepTime:
    """The estimated time of one step, in seconds."""

    device: float
    """Time of the cores, from the compiler's counts."""
    links: float
    """Time of the collectives, if nothing else ran meanwhile."""
    low: float
    """The estimate times the smallest published ratio."""
    high: float
    """The estimate times the largest published ratio."""
    by_part: dict[str, float]
    """The time `device`, split by part of the step."""
    method: str
    """A description of the method and its error, for the report."""

    @property
    def seconds(self) -> float:
        """The estimate itself."""
        return self.device + self.links

    @property
    def middle(self) -> float:
        """The geometric mean of `low` and `high`, which is the time to plan with."""
        return (self.low * self.high) ** 0.5


def step_time(result: dict[str, Any], target: Target) -> StepTime | None:
    """Estimates the step time from a worker's result; None if the result has no basis for it.

    The encoding of a stream's images, which the same devices do, is part of it.
    """
    step, stream = prepared_step_time(result, target), result.get("stream")
    encoding = prepared_step_time(stream, target) if stream else None
    if step is None or encoding is None or stream is None:
        return step
    chunks = stream["chunks_per_step"]
    return replace(
        step,
        device=step.device + chunks * encoding.device,
        links=step.links + chunks * encoding.links,
        low=step.low + chunks * encoding.low,
        high=step.high + chunks * encoding.high,
        by_part=step.by_part | {"autoencoder": chunks * encoding.device},
    )


def prepared_step_time(result: dict[str, Any], target: Target) -> StepTime | None:
    """Estimates the time of the step alone, as it runs on prepared data."""
    if cycles := result.get("cycles"):
        return _from_cycles(cycles, target)
    if traffic := result.get("traffic"):
        return _from_traffic(result, traffic, target)
    return None


def _from_cycles(cycles: dict[str, Any], target: Target) -> StepTime:
    clock = target.chip.clock
    by_part = {part: cycles["by_part"].get(part, 0.0) / clock for part in PARTS}
    device = sum(by_part.values())
    links = sum(cycles["collective_bytes"].values()) / target.chip.link
    ratios = [ratio for pair in PUBLISHED.values() for ratio in pair]
    least, most = min(ratios), max(ratios)
    total = device + links
    method = (
        f"the cycles that the TPU compiler estimates, loops in every iteration, at "
        f"{clock / 1e9:g} GHz, plus the bytes of collectives at {target.chip.link / 1e9:g} GB/s. "
        f"Published runs on TPU v3 took {least:.2f} to {most:.2f} times such an estimate"
    )
    return StepTime(
        device=device,
        links=links,
        low=total * least,
        high=total * most,
        by_part={part: seconds for part, seconds in by_part.items() if seconds},
        method=method,
    )


def _from_traffic(result: dict[str, Any], traffic: dict[str, Any], target: Target) -> StepTime:
    at_peak = sum(flops / target.peak(dtype) for dtype, flops in result["flops_run"].items())
    products = at_peak / target.devices / MATMUL_SHARE
    rest = traffic["other_bytes"] / (target.chip.bandwidth * BANDWIDTH_SHARE)
    links = sum(traffic["collective_bytes"].values()) / target.chip.link
    total = products + rest + links
    method = (
        f"a rough estimate, with operations at {MATMUL_SHARE:.0%} of the peak and the bytes of all "
        f"other kernels at {BANDWIDTH_SHARE:.0%} of the bandwidth. Both shares are assumed: GPU "
        "compilers give no time estimates, and nothing was measured on this card"
    )
    return StepTime(
        device=products + rest,
        links=links,
        low=total / GPU_FACTOR,
        high=total * GPU_FACTOR,
        by_part={"products": products, "other kernels": rest},
        method=method,
    )
