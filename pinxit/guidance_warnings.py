"""Guidance out of range: what a scale does before anything is drawn, and pictures that are burnt.

Too strong a guidance drives latents out of the range that the autoencoder and the model know: the
picture's colours run into black, white and pure red. Two figures tell: the standard deviation of
the latents against that of the training data, and the share of colour values at 0 or 255.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WEAK, STRONG = 1.0, 20.0
"""Outside these a scale is told of."""
USUAL = "2 to 7.5"
"""Scales that people draw with."""
BURNT_STD = 1.5
"""Times the training data's deviation (or 1, of noise, if that is less) that latents may have."""
BURNT_PIXELS = 0.25
"""Share of values at 0 or 255 beyond the training data's that a picture may have."""


@dataclass(frozen=True)
class Usual:
    """What the training data's latents and pictures are like."""

    std: float
    """Standard deviation of the latents."""
    saturated: float
    """Share of the images' colour values that are 0 or 255."""


def usual_of(details: Mapping[str, Any]) -> Usual | None:
    """What a stored model knows of its training data, or None."""
    probe = details.get("probe") or {}
    if "latents/std" not in probe or "latents/saturated" not in probe:
        return None
    return Usual(float(probe["latents/std"]), float(probe["latents/saturated"]))


class Exposure:
    """Looks at pictures as they are drawn; `warn` says at the end if they are burnt."""

    def __init__(self, scale: float, details: Mapping[str, Any]) -> None:
        self.scale = scale
        self.usual = usual_of(details)
        self.stds: list[float] = []
        self.shares: list[float] = []

    def see(self, latents: Any, images: Sequence[Any]) -> None:
        """Latents ``b h w c``, and what was made of them: pictures, arrays of bytes, or latents."""
        if self.usual is None or self.scale <= 1:
            return
        self.stds.append(float(np.std(np.asarray(latents, np.float32))))
        for image in images:
            pixels = np.asarray(image)
            if pixels.dtype == np.uint8:
                self.shares.append(saturated(pixels))

    def warn(self) -> None:
        """One warning for all that was seen, at the line that called `TextToImage`."""
        said = burnt(
            scale=self.scale,
            usual=self.usual,
            std=float(np.mean(self.stds)) if self.stds else None,
            share=float(np.mean(self.shares)) if self.shares else None,
        )
        if said:
            warnings.warn(said, stacklevel=4)


def out_of_range(scale: float) -> str | None:
    """What to say of an unusual guidance scale; None of a usual one."""
    if scale == 0:
        return "guidance_scale is 0: the prompt is ignored (the empty one is drawn); 1 follows it"
    if scale < WEAK:
        return (
            f"guidance_scale is {scale:g}: below 1 the prompt is followed less than without "
            f"guidance; 1 is off, {USUAL} is usual"
        )
    if scale > STRONG:
        return (
            f"guidance_scale is {scale:g}: so strong a guidance burns colours and costs variety; "
            f"{USUAL} is usual"
        )
    return None


def saturated(pixels: np.ndarray) -> float:
    """Share of uint8 values that are 0 or 255."""
    return float(np.isin(pixels, (0, 255)).mean()) if pixels.size else 0.0


def burnt(
    *, scale: float, usual: Usual | None, std: float | None = None, share: float | None = None
) -> str | None:
    """What to say of pictures drawn with `scale`, whose latents have the deviation `std` and of
    whose colour values `share` are 0 or 255; None of good ones, or where nothing is known."""
    if usual is None or scale <= 1:
        return None
    said = []
    if std is not None and (not math.isfinite(std) or std > BURNT_STD * max(usual.std, 1.0)):
        said.append(f"the latents' deviation is {std:.2f} (in training {usual.std:.2f})")
    if share is not None and share > usual.saturated + BURNT_PIXELS:
        said.append(
            f"{share:.0%} of the colour values are 0 or 255 (in training {usual.saturated:.0%})"
        )
    if not said:
        return None
    lower = f"1.5 to {max(2.0, scale / 2):.2g}"
    return (
        f"the pictures look burnt: {' and '.join(said)}; guidance_scale is {scale:g}, try {lower}, "
        "guidance within an interval (guidance_interval 0.2 0.9) or more steps; a model that is "
        "trained too little looks so too"
    )
