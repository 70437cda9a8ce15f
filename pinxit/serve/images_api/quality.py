"""Maps the qualities of OpenAI's API to numbers of solver steps."""

from __future__ import annotations

FACTORS = {"low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 3.0, "max": 4.0}
"""The number of steps of each quality, as a multiple of the model's default."""
OTHER_NAMES = {"auto": "medium", "standard": "medium", "hd": "high"}
"""Other names of qualities."""


def quality_name(quality: str | None) -> str:
    """Returns the name in `FACTORS` of a quality; none is the model's default."""
    quality = quality or "auto"
    return OTHER_NAMES.get(quality, quality)


def steps_of(quality: str, default: int, most: int) -> int:
    """Returns the steps of a quality of `FACTORS`: at least one, and at most `most`."""
    return max(1, min(most, round(FACTORS[quality] * default)))


def steps_of_all(default: int, most: int) -> dict[str, int]:
    """Returns the steps of each quality of a model."""
    return {name: steps_of(name, default, most) for name in FACTORS}
