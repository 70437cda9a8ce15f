"""Warnings about guidance scales: unusual values before sampling, overexposed pictures after it.

Guidance that is too strong drives latents out of the range that the autoencoder and the model were
trained on, and the picture's colours saturate to black, white and pure red. Two figures show it:
the standard deviation of the latents compared with the training data's, and the fraction of colour
values at 0 or 255.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WEAK, STRONG = 1.0, 20.0
"""A warning is given for scales outside this range."""
USUAL = "2 to 7.5"
"""The range of scales in common use."""
BURNT_STD = 1.5
"""Latents count as overexposed when their standard deviation exceeds this multiple of
max(training data's, 1). 1 is the standard deviation of noise."""
BURNT_PIXELS = 0.25
"""Pictures count as overexposed when their fraction of values at 0 or 255 exceeds the training
data's by more than this."""


@dataclass(frozen=True)
class Usual:
    """Statistics of the training data's latents and images."""

    std: float
    """Standard deviation of the latents."""
    saturated: float
    """Fraction of the images' colour values that are 0 or 255."""


def usual_of(details: Mapping[str, Any]) -> Usual | None:
    """Returns the training data's statistics from a stored model's details, or None."""
    probe = details.get("probe") or {}
    if "latents/std" not in probe or "latents/saturated" not in probe:
        return None
    return Usual(float(probe["latents/std"]), float(probe["latents/saturated"]))


class Exposure:
    """Collects statistics of pictures as they are drawn, and warns if they are overexposed."""

    def __init__(self, scale: float, details: Mapping[str, Any]) -> None:
        self.scale = scale
        self.usual = usual_of(details)
        self.stds: list[float] = []
        self.shares: list[float] = []

    def see(self, latents: Any, images: Sequence[Any]) -> None:
        """Adds latents ``b h w c`` and their results: PIL images, uint8 arrays, or latents."""
        if self.usual is None or self.scale <= 1:
            return
        self.stds.append(float(np.std(np.asarray(latents, np.float32))))
        for image in images:
            pixels = np.asarray(image)
            if pixels.dtype == np.uint8:
                self.shares.append(saturated(pixels))

    def message(self) -> str | None:
        """Returns a warning about all pictures so far, or None."""
        return burnt(
            scale=self.scale,
            usual=self.usual,
            std=float(np.mean(self.stds)) if self.stds else None,
            share=float(np.mean(self.shares)) if self.shares else None,
        )

    def warn(self) -> None:
        """Warns at most once for all pictures, at the line that called `TextToImage`."""
        if message := self.message():
            warnings.warn(message, stacklevel=4)


def out_of_range(scale: float) -> str | None:
    """Returns a warning about an unusual guidance scale, or None for a usual one."""
    if scale == 0:
        return (
            "guidance_scale is 0: the prompt is ignored, as if it were empty; "
            f"1 turns guidance off, and {USUAL} is usual"
        )
    if scale < WEAK:
        return (
            f"guidance_scale is {scale:g}: below 1 the prompt has less effect than without "
            f"guidance; 1 turns guidance off, and {USUAL} is usual"
        )
    if scale > STRONG:
        return (
            f"guidance_scale is {scale:g}: guidance this strong oversaturates colours and reduces "
            f"variety; {USUAL} is usual"
        )
    return None


def saturated(pixels: np.ndarray) -> float:
    """Returns the fraction of uint8 values that are 0 or 255."""
    return float(np.isin(pixels, (0, 255)).mean()) if pixels.size else 0.0


def burnt(
    *, scale: float, usual: Usual | None, std: float | None = None, share: float | None = None
) -> str | None:
    """Returns a warning about pictures that are overexposed, or None.

    `scale` is the guidance scale, `std` the standard deviation of the latents, and `share` the
    fraction of colour values that are 0 or 255. Without `usual`, returns None.
    """
    if usual is None or scale <= 1:
        return None
    signs = []
    if std is not None and (not math.isfinite(std) or std > BURNT_STD * max(usual.std, 1.0)):
        signs.append(f"the latents' standard deviation is {std:.2f} (in training {usual.std:.2f})")
    if share is not None and share > usual.saturated + BURNT_PIXELS:
        signs.append(
            f"{share:.0%} of the colour values are 0 or 255 (in training {usual.saturated:.0%})"
        )
    if not signs:
        return None
    lower = f"1.5 to {max(2.0, scale / 2):.2g}"
    return (
        f"the pictures look overexposed: {' and '.join(signs)}; guidance_scale is {scale:g}: "
        f"try {lower}, guidance within an interval (guidance_interval 0.2 0.9), or more steps; "
        "an undertrained model can also cause this"
    )
