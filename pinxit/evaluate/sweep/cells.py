"""The cells of a sweep: every combination of the values of its axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.comparison_grid.axes import Axis, spelled
from pinxit.config import UsageError, full_names, hints
from pinxit.sampling import ALIASES, Sampling

AVERAGE = "ema"
"""The axis that varies the average of the parameters, which means another model."""
SWEPT = (*hints(Sampling), AVERAGE)
"""The names of the settings that a sweep may vary."""
LARGEST = 1000
"""The largest number of cells."""


@dataclass(frozen=True)
class SweepCell:
    """One setting of all axes."""

    settings: Mapping[str, Any]
    """The value of each axis, by the axis's name."""

    @property
    def ema(self) -> str | None:
        """The average to measure, or None if no axis varies it."""
        return self.settings.get(AVERAGE)

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings of the cell."""
        return {name: value for name, value in self.settings.items() if name != AVERAGE}

    @property
    def words(self) -> str:
        """The settings in words, such as "guidance_scale 2, steps 4"."""
        return ", ".join(f"{name} {spelled(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Sweep:
    """The axes of a sweep. Checked when it is made.

    Raises `UsageError` without axes, for an axis that appears twice, for one that no sweep has, and
    for more than `LARGEST` cells.
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if not names:
            raise UsageError("sweep", None, problem="without axes", valid="steps=4,8,16")
        for name in names:
            if name not in SWEPT:
                raise _not_swept(name)
            if names.count(name) > 1:
                problem = "the name of two axes"
                raise UsageError("sweep", name, problem=problem, valid="each setting once")
        if len(self) > LARGEST:
            problem = f"a sweep of {len(self):,} cells"
            valid = f"at most {LARGEST:,}: fewer values, or several sweeps"
            raise UsageError("sweep", self.written, problem=problem, valid=valid)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Sweep:
        """Returns the sweep over axes such as ``steps=4,8,16``, each of which is one text."""
        for text in texts:
            name, equals, _ = text.partition("=")
            name = name.strip().removeprefix("--").replace("-", "_")
            if equals and ALIASES.get(name, name) not in SWEPT:
                raise _not_swept(name)
        with full_names(axis="sweep"):
            return cls(tuple(Axis.parse(text) for text in texts))

    def __len__(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def written(self) -> tuple[str, ...]:
        """The axes as the command line takes them."""
        return tuple(axis.written for axis in self.axes)

    def cells(self) -> list[SweepCell]:
        """Returns the cells; the values of the last axis change fastest."""
        names = [axis.name for axis in self.axes]
        values = itertools.product(*(axis.values for axis in self.axes))
        return [SweepCell(dict(zip(names, each, strict=True))) for each in values]

    def check_free(self, fixed: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a setting that is fixed although an axis varies it."""
        for axis in self.axes:
            if fixed.get(axis.name) is not None:
                value, problem = fixed[axis.name], "fixed, but the sweep varies it"
                raise UsageError(axis.name, value, problem=problem, valid="one of the two")


def _not_swept(name: str) -> UsageError:
    problem = "no setting that a sweep varies"
    if name in ("seed", "prompt", "size", "checkpoint", "negative_prompt", "prompt_sr"):
        other = "pinxit compare" if name == "checkpoint" else "pinxit grid"
        problem = f"{problem} (all cells have the same prompts and seeds; see {other})"
    return UsageError("sweep", name, problem=problem, valid=[*SWEPT, *ALIASES])
