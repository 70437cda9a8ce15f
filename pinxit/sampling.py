"""How pictures are drawn: the settings of a call, checked before anything is computed.

`Sampling` is the only place that lists these settings. To add one: a field, and the code that uses
it. The command line, `TextToImage.generate`, a run's settings and the recipe inside a picture take
every field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pinxit.config import UsageError, positive, typed
from pinxit.flow.guidance import Guidance
from pinxit.flow.solvers import get_solver

SEEDS = 2**32
"""Seeds are below this."""
OUTPUTS = ("pil", "np", "latent")
"""What `TextToImage.generate` can return."""


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn, unless a call says otherwise."""

    steps: int = 32
    """Solver steps."""
    guidance_scale: float = 4.0
    """1 turns guidance off."""
    solver: str = "euler"
    """euler, heun, midpoint or dpmpp_2m."""
    shift: float = 1.0
    """Time-grid shift; above 1 spends more steps near noise."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times within which guidance acts; 1 is noise."""
    cfg_zero_star: bool = False
    """CFG-Zero*: fit the null velocity to the conditional one."""
    zero_init: float = 0.0
    """CFG-Zero*: share of the time, at the noisy end, in which nothing moves."""

    def __post_init__(self) -> None:
        positive("steps", self.steps)
        positive("guidance_scale", self.guidance_scale, minimum=0)
        if not math.isfinite(self.guidance_scale):
            valid = "a finite number; 2 to 7.5 is usual"
            raise UsageError(
                "guidance_scale", self.guidance_scale, problem="not finite", valid=valid
            )
        if not self.shift > 0:
            raise UsageError("shift", self.shift, problem="not positive", valid="a number above 0")
        get_solver(self.solver)
        self.guidance()

    def guidance(self) -> Guidance:
        """The guidance these settings describe."""
        low, high = (float(end) for end in self.guidance_interval)
        return Guidance(
            scale=float(self.guidance_scale),
            interval=(low, high),
            zero_star=self.cfg_zero_star,
            zero_init=self.zero_init,
        )

    def override(self, **changes: Any) -> Sampling:
        """These settings with the given ones changed; None leaves a setting alone.

        Names may be those of `ALIASES`; a setting that is given twice with two values is an error.
        """
        given: dict[str, Any] = {}
        for name, value in sorted(changes.items(), key=lambda change: change[0] in ALIASES):
            full = ALIASES.get(name, name)
            if value is None:
                continue
            if given.setdefault(full, value) != value:
                raise UsageError(name, value, problem=f"not {full}", valid=[given[full]])
        return replace(self, **typed(Sampling, given))


ALIASES = {"cfg_scale": "guidance_scale", "num_inference_steps": "steps"}
"""Other names of settings, as other libraries call them."""


@dataclass(frozen=True)
class Order:
    """The pictures that one call asks for."""

    prompts: list[str]
    """One for each picture."""
    seeds: list[int]
    """One for each picture."""
    negative_prompt: str
    """What guidance steers away from."""
    size: tuple[int, int]
    """Width and height, in pixels."""
    sampling: Sampling
    """How they are drawn."""
    output_type: str
    """One of `OUTPUTS`."""
    batch_size: int
    """Pictures computed together; by default one on a CPU, four where there is an accelerator."""


def check_prompts(prompt: str | Sequence[str], n: int) -> list[str]:
    """Each prompt `n` times, as a list that is not empty."""
    positive("n", n)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise UsageError("prompt", prompts, problem="an empty list", valid="at least one prompt")
    return [text for text in prompts for _ in range(n)]


def check_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each picture, below 2**32."""
    seeds = [seed + i for i in range(count)] if isinstance(seed, int) else list(seed)
    if len(seeds) != count:
        raise UsageError("seed", seeds, problem=f"{len(seeds)} seeds for {count} pictures")
    for value in (seed, *seeds) if isinstance(seed, int) else seeds:
        if value < 0 or value >= 2 * SEEDS:
            raise UsageError("seed", value, problem="out of range", valid=f"0 to {SEEDS - 1}")
    return [value % SEEDS for value in seeds]
