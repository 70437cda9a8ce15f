"""A comparison grid: its axes, the settings that stay the same, and its cells.

`Grid` is plain data. It is checked when it is made, before a model is loaded.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pinxit import extensions
from pinxit.comparison_grid.axes import MODELS, REPLACE, Axis, spelled
from pinxit.config import UsageError, hints, positive, unknown_name, written
from pinxit.sampling import Sampling, check_seed

SETTINGS = (
    *("prompt", "negative_prompt", "seed", "size", *MODELS, "batch_size", "encoder_dtype"),
    *hints(Sampling),
)
"""The settings that all cells may share."""
PLACES = ("x", "y", "z")
"""The options of the axes: columns, rows, and panels."""
LIMIT = 89_478_485
"""The largest number of pixels of a sheet. Pillow warns about pictures that have more."""
SMALLEST = 64 * 64
"""The number of pixels that a cell takes on a sheet at least."""


@dataclass(frozen=True)
class Cell:
    """One picture of a grid."""

    place: tuple[int, ...]
    """The number of its value on each axis."""
    settings: Mapping[str, Any]
    """The settings of its picture; those that are absent have the model's defaults."""

    @property
    def model(self) -> tuple[str | None, str | None]:
        """The checkpoint and the average that draw the picture; None means the default."""
        return self.settings.get("checkpoint"), self.settings.get("ema")


@dataclass(frozen=True)
class Grid:
    """The pictures over one, two or three settings. Checked when it is made.

    Raises `UsageError` for an axis that appears twice or is fixed too, for a grid without a prompt,
    for a search text that no prompt contains, and for a grid that no sheet could hold.
    """

    axes: tuple[Axis, ...]
    """The axes of the columns, the rows and the panels; the last one or two may be absent."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that all cells share, by the names of `SETTINGS`. A size is (width, height)."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.axes) <= len(PLACES):
            names = [axis.name for axis in self.axes]
            raise UsageError("axes", names, problem="not one, two or three axes")
        self._check_settings()
        names = [axis.name for axis in self.axes]
        for place, axis in zip(PLACES, self.axes, strict=False):
            if axis.name in self.settings:
                problem = f"fixed, but the axis {place} varies {axis.name}"
                value = self.settings[axis.name]
                value = spelled(value) if axis.name == "size" else value
                raise UsageError(axis.name, value, problem=problem, valid="one of the two")
            if names.count(axis.name) > 1 and axis.name != REPLACE:
                problem = "the setting of two axes"
                raise UsageError(place, axis.name, problem=problem, valid="different settings")
        if "prompt" not in self.settings and "prompt" not in names:
            problem, valid = "missing", "a text, or an axis prompt=TEXT|TEXT"
            raise UsageError("prompt", None, problem=problem, valid=valid)
        if len(self) * SMALLEST > LIMIT:
            raise too_large(len(self), f"{len(self) * SMALLEST:,} or more")
        sizes = [cell.settings["size"] for cell in self.cells() if "size" in cell.settings]
        if (pixels := sum(width * height for width, height in sizes)) > LIMIT:
            raise too_large(len(self), f"{pixels:,} or more")

    def _check_settings(self) -> None:
        for name in self.settings:
            if name not in SETTINGS:
                raise unknown_name(name, SETTINGS)
        if (seed := self.settings.get("seed")) is not None:
            check_seed("seed", seed)
        if (size := self.settings.get("size")) is not None and not all(part > 0 for part in size):
            raise UsageError("size", spelled(size), problem="not a size", valid="sides above 0")
        positive("batch_size", self.settings.get("batch_size"))
        Sampling().override(**sampling_of(self.settings))

    def __len__(self) -> int:
        product = 1
        for axis in self.axes:
            product *= len(axis.values)
        return product

    def cells(self) -> list[Cell]:
        """Returns the cells: those of the first panel by rows, then those of the next panel."""
        ranges = [range(len(axis.values)) for axis in reversed(self.axes)]
        return [self._cell(numbers[::-1]) for numbers in itertools.product(*ranges)]

    def _cell(self, place: tuple[int, ...]) -> Cell:
        chosen = [(axis, axis.values[i]) for axis, i in zip(self.axes, place, strict=True)]
        settings = dict(self.settings) | {axis.name: value for axis, value in chosen}
        settings.pop(REPLACE, None)
        texts = {name: settings.get(name, "") for name in ("prompt", "negative_prompt")}
        for axis, value in chosen:
            if axis.name != REPLACE:
                continue
            searched = axis.values[0]
            if not searched or not any(searched in text for text in texts.values()):
                problem = f"not in the prompt {texts['prompt']!r}, in which it is to be replaced"
                valid = "SEARCH|REPLACEMENT, with a search text from the prompt"
                raise UsageError(REPLACE, searched, problem=problem, valid=valid)
            texts = {name: text.replace(searched, value) for name, text in texts.items()}
        return Cell(place, settings | texts)

    def words(self) -> list[str]:
        """Returns the command that makes this grid, without the names of its files."""
        own = extensions.loaded()
        words = ["pinxit", *([extensions.OPTION, ",".join(own)] if own else []), "grid"]
        for place, axis in zip(PLACES, self.axes, strict=False):
            words += [f"--{place}", axis.written]
        for name in SETTINGS:
            if name == "prompt" or self.settings.get(name) is None:
                continue
            value = self.settings[name]
            words.append(f"--{name}")
            words += [spelled(value)] if name == "size" else shlex.split(written(value))
        prompt = self.settings.get("prompt")
        if prompt is None:
            return words
        return [*words, "--", prompt]

    @property
    def command(self) -> str:
        """The command that makes this grid, for a shell."""
        return shlex.join(self.words())


@runtime_checkable
class GridRecipes(Protocol):
    """A grid with the recipe of each cell: all that a sheet shows besides the pictures."""

    @property
    def grid(self) -> Grid:
        """The grid that is drawn."""
        ...

    @property
    def recipes(self) -> list[dict[str, Any]]:
        """The recipe of each cell, in the order of `Grid.cells`."""
        ...


def check_guidance_used(grid: Grid, recipes: list[dict[str, Any]]) -> None:
    """Raises for a setting that only guidance reads, if no cell is drawn with guidance."""
    if any(recipe["guidance_scale"] != 1 for recipe in recipes):
        return
    varied = {axis.name: axis.texts for axis in grid.axes}
    problem = "without effect, since guidance_scale 1 turns guidance off"
    for name in ("negative_prompt", "guidance_interval", "cfg_zero_star"):
        if value := grid.settings.get(name) or varied.get(name):
            raise UsageError(name, value, problem=problem, valid="leave it out")


def sampling_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Sampling` among settings."""
    return {name: settings[name] for name in hints(Sampling) if name in settings}


def too_large(cells: int, pixels: str) -> UsageError:
    """Returns the error for a sheet with more than `LIMIT` pixels."""
    valid = f"at most {LIMIT:,} pixels: fewer values on an axis, or a smaller size"
    return UsageError(f"the sheet of {cells:,} cells would have {pixels} pixels; valid: {valid}")


def shared_values(grid: Grid, recipes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns the different values of each setting in the recipes of all cells that is no axis.

    Settings of which the models have different defaults have several values.
    """
    varied = {axis.name for axis in grid.axes}
    if REPLACE in varied:
        varied |= {"prompt", "negative_prompt"}
    values: dict[str, list[Any]] = {}
    for recipe in recipes:
        for name, value in recipe.items():
            if name not in varied and value not in values.setdefault(name, []):
                values[name].append(value)
    return values
