"""How long a step takes, by the compiler's own figures; how sure that is; and what follows.

TPU: the cycles of everything that runs over the clock, plus the collectives' bytes over the links,
times what published runs took over the same figure for their programs (`PUBLISHED`). Others:
operations and bytes over assumed shares of the peak (`pinxit.plan.gpu_roofline`), not checked
against anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinxit.plan.gpu_roofline import BANDWIDTH_SHARE, MATMUL_SHARE
from pinxit.plan.targets import Target
from pinxit.plan.tpu_cycles import PARTS

PUBLISHED = {
    "ViT-S/16, 90 epochs of ImageNet on a v3-8 (arXiv:2205.01580)": (1.06,),
    "MAE ViT-L, 800 epochs on 128 v3 cores (arXiv:2111.06377)": (0.84,),
    "DiT-XL/2, 5.7 steps/s of 256 on a v3-256 (arXiv:2212.09748)": (1.13, 1.16),
}
"""Measured over estimated time, as printed by `python benchmarks/plan_vs_published.py`; for the
second and the third with ``--scanned``, whose programs are slower than the authors' own: their true
ratios are higher. DiT with activations in bfloat16 and in float32."""

GPU_FACTOR = 2.0
"""By how much a plan for a GPU may be wrong, to both sides: a guess."""


@dataclass(frozen=True)
class StepTime:
    """One step's estimate, in seconds."""

    device: float
    """Of the cores, as the compiler counts."""
    links: float
    """Of the collectives, were nothing else going on."""
    low: float
    """The estimate times the smallest published ratio."""
    high: float
    """The estimate times the largest."""
    by_part: dict[str, float]
    """`device` by part of the step."""
    method: str
    """How it was found, and its error, in a sentence or two."""

    @property
    def seconds(self) -> float:
        """The estimate itself."""
        return self.device + self.links

    @property
    def middle(self) -> float:
        """What to plan with: the middle of the range, in the sense of ratios."""
        return (self.low * self.high) ** 0.5


def step_time(result: dict[str, Any], target: Target) -> StepTime | None:
    """From a worker's result; None where there is nothing to go by."""
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
        f"cycles that the TPU compiler notes for every fusion, loops as often as they turn, at "
        f"{clock / 1e9:g} GHz, plus bytes of collectives at {target.chip.link / 1e9:g} GB/s; "
        f"published runs on TPU v3 took {least:.2f} to {most:.2f} times such an estimate"
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
    operations = result["flops_run"] / target.devices
    products = operations / (target.peak(result["dtype"]) * MATMUL_SHARE)
    rest = traffic["other_bytes"] / (target.chip.bandwidth * BANDWIDTH_SHARE)
    links = sum(traffic["collective_bytes"].values()) / target.chip.link
    total = products + rest + links
    method = (
        f"rough: operations at {MATMUL_SHARE:.0%} of the peak and the bytes of all other kernels "
        f"at {BANDWIDTH_SHARE:.0%} of the bandwidth, shares that are assumed; this compiler "
        "estimates no time, and nothing was measured on this card"
    )
    return StepTime(
        device=products + rest,
        links=links,
        low=total / GPU_FACTOR,
        high=total * GPU_FACTOR,
        by_part={"products": products, "other kernels": rest},
        method=method,
    )
