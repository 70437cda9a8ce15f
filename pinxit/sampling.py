"""Settings for drawing pictures, checked before anything is computed.

`Sampling` is the only place that lists these settings. To add one, write a field and the
code that uses it. The command line, `TextToImage.generate`, a run's settings and the recipe inside
a picture take every field.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError, choice, full_names, positive, typed, unknown_name
from pinxit.flow.guidance import Guidance
from pinxit.flow.solvers import get_solver
from pinxit.flow.time import diffusers_sigmas, time_grid
from pinxit.source_image import SourceImage

SEEDS = 2**32
"""The number of seeds; the largest seed is one less."""
SPACINGS = ("even", "diffusers")
"""The values of `Sampling.spacing`."""
OUTPUTS = ("pil", "np", "latent")
"""The output types of `TextToImage.generate`."""


@dataclass(frozen=True)
class Sampling:
    """The sampling settings; a call may override each of them."""

    steps: int = 32
    """Number of solver steps."""
    guidance_scale: float = 4.0
    """Strength of classifier-free guidance; 1 turns it off."""
    solver: str = "euler"
    """The solver: euler, heun, midpoint or dpmpp_2m."""
    shift: float = 1.0
    """Shift of the time grid; above 1, more of the steps are near the noise."""
    spacing: str = "even"
    """Spacing of the times before the shift: even, or that of diffusers' scheduler."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times, from 0 (data) to 1 (noise), within which guidance is applied."""
    cfg_zero_star: bool = False
    """CFG-Zero*: scale the null velocity to fit the conditional one."""
    zero_init: float = 0.0
    """CFG-Zero*: fraction of the times, at the noisy end, at which the velocity is zero."""

    def __post_init__(self) -> None:
        positive("steps", self.steps)
        positive("guidance_scale", self.guidance_scale, minimum=0)
        if not math.isfinite(self.guidance_scale):
            valid = "a finite number; 2 to 7.5 is usual"
            raise UsageError(
                "guidance_scale", self.guidance_scale, problem="not finite", valid=valid
            )
        if not 0 < self.shift < math.inf:
            problem = "not positive" if self.shift <= 0 else "not finite"
            raise UsageError("shift", self.shift, problem=problem, valid="a number above 0")
        get_solver(self.solver)
        choice("spacing", self.spacing, SPACINGS)
        with full_names(interval="guidance_interval"):
            self.guidance()

    def guidance(self) -> Guidance:
        """Returns the guidance that these settings describe."""
        low, high = (float(end) for end in self.guidance_interval)
        return Guidance(
            scale=float(self.guidance_scale),
            interval=(low, high),
            zero_star=self.cfg_zero_star,
            zero_init=self.zero_init,
        )

    def times(self) -> Float[np.ndarray, " s"]:
        """Returns the times that the solver visits, from 1 (noise) down to 0 (data)."""
        grid = diffusers_sigmas if self.spacing == "diffusers" else time_grid
        return grid(self.steps, shift=float(self.shift))

    def override(self, **changes: Any) -> Sampling:
        """Returns these settings with changes; None leaves a setting unchanged.

        Names of `ALIASES` are accepted. Raises `UsageError` if two names of one setting have
        different values.
        """
        values: dict[str, Any] = {}
        for name, value in sorted(changes.items(), key=lambda change: change[0] in ALIASES):
            full = ALIASES.get(name, name)
            if full not in self.__dataclass_fields__:
                known = [*self.__dataclass_fields__, *ALIASES, *OTHERS]
                raise unknown_name(name, known, instead=HABITS.get(name, ""))
            if value is None:
                continue
            value = value.item() if isinstance(value, np.generic) else value
            if values.setdefault(full, value) != value:
                raise UsageError(name, value, problem=f"not equal to {full}", valid=[values[full]])
        return replace(self, **typed(Sampling, values))


ALIASES = {"cfg_scale": "guidance_scale", "num_inference_steps": "steps"}
"""Names that other libraries use for these settings, and that are accepted."""
OTHERS = (
    *("negative_prompt", "seed", "n", "size", "output_type", "batch_size", "progress"),
    *("image", "mask", "strength", "warn"),
)
"""The other arguments of `TextToImage.generate`."""
HABITS = {
    **dict.fromkeys(("width", "height"), "size=(width, height)"),
    **dict.fromkeys(("num_images_per_prompt", "num_images", "num_samples"), "n"),
    **dict.fromkeys(("generator", "manual_seed", "seeds"), "seed, an integer or a list of them"),
    **dict.fromkeys(("guidance", "cfg", "scale"), "guidance_scale"),
    **dict.fromkeys(("scheduler", "sampler"), "solver, the name of one"),
    **dict.fromkeys(("init_image", "source", "source_image"), "image"),
    **dict.fromkeys(("mask_image", "mask_img"), "mask, whose white part is repainted"),
    **dict.fromkeys(("denoising_strength", "denoise"), "strength, above 0 and at most 1"),
    **dict.fromkeys(("num_steps", "timesteps", "sigmas"), "steps, and shift for their spacing"),
}
"""Arguments of other libraries that are not accepted, with ours for the error message."""


Integer = SupportsIndex
"""An integer of Python or NumPy."""
Seeds = Integer | Sequence[Integer] | np.ndarray
"""The seed of the first picture, or a sequence with the seed of each picture."""


@dataclass(frozen=True)
class Order:
    """The pictures that one call requests."""

    prompts: list[str]
    """The prompt of each picture."""
    seeds: list[int]
    """The seed of each picture."""
    negative_prompts: list[str]
    """The prompt that guidance steers each picture away from."""
    size: tuple[int, int]
    """Width and height, in pixels."""
    sampling: Sampling
    """The sampling settings of all pictures."""
    output_type: str
    """The output type, one of `OUTPUTS`."""
    batch_size: int
    """Number of pictures that each device computes together; always 1 on a CPU, and by default 4 on
    an accelerator."""
    source: SourceImage | None = None
    """The image that the pictures start from, or None."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def steps(self) -> int:
        """The number of solver steps that are made, which a source image reduces."""
        steps = self.sampling.steps
        return steps if self.source is None else self.source.steps_of(steps)

    def times(self) -> Float[np.ndarray, " s"]:
        """Returns the times that the solver visits: with a source image, the last ones only."""
        return self.sampling.times()[-self.steps - 1 :]

    def batches(self, skip: Collection[int] = ()) -> list[range]:
        """Returns the numbers of the pictures of each batch, without batches wholly in `skip`."""
        starts = range(0, len(self), self.batch_size)
        batches = [range(start, min(start + self.batch_size, len(self))) for start in starts]
        return [batch for batch in batches if any(i not in skip for i in batch)]


def check_prompts(prompt: str | Sequence[str], n: int) -> list[str]:
    """Returns each prompt `n` times; raises `UsageError` for an empty list."""
    positive("n", n)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise UsageError("prompt", prompts, problem="an empty list", valid="at least one prompt")
    return [text for text in prompts for _ in range(n)]


def check_negative(negative_prompt: str | Sequence[str], n: int, count: int) -> list[str]:
    """Returns the negative prompt of each of `count` pictures, `n` of which belong to a prompt."""
    if isinstance(negative_prompt, str):
        return [negative_prompt] * count
    texts = [text for text in negative_prompt for _ in range(n)]
    if len(texts) != count:
        problem = f"{len(texts) // n} negative prompts for {count // n} prompts"
        valid = "one for all prompts, or one for each"
        raise UsageError("negative_prompt", list(negative_prompt), problem=problem, valid=valid)
    return texts


def check_seeds(seed: object, count: int) -> list[int]:
    """Returns one seed below 2**32 for each picture. Raises `UsageError` for others."""
    several = isinstance(seed, Sequence | np.ndarray) and np.ndim(seed) == 1
    if several:
        seeds = [_integer(value) for value in seed]  # type: ignore[union-attr]
    else:
        seeds = [_integer(seed) + i for i in range(count)]
    if len(seeds) != count:
        raise UsageError("seed", seeds, problem=f"{len(seeds)} seeds for {count} pictures")
    for value in seeds:
        if 0 <= value < SEEDS:
            continue
        first, problem = value if several else seeds[0], "out of range"
        if 0 <= first < SEEDS:
            problem = f"too large for {count} pictures, the last of which would have seed + n - 1"
            raise UsageError("seed", first, problem=problem, valid=f"0 to {SEEDS - count}")
        check_seed("seed", first)
    return seeds


def check_seed(field: str, seed: int) -> None:
    """Raises unless a seed is in the range that a key of JAX distinguishes."""
    if not 0 <= seed < SEEDS:
        raise UsageError(field, seed, problem="out of range", valid=f"0 to {SEEDS - 1}")


def _integer(seed: Any) -> int:
    """Returns a seed, which may be a NumPy integer, as an int."""
    try:
        return operator.index(seed)
    except TypeError:
        problem = "not an integer"
        raise UsageError("seed", seed, problem=problem, valid=f"0 to {SEEDS - 1}") from None
