"""Turns a request for a comparison grid into a checked `Grid` and a request for each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pinxit.comparison_grid.axes import Axis, width_and_height
from pinxit.comparison_grid.grid import Cell, Grid, check_guidance_used, sampling_of
from pinxit.comparison_grid.sheet import GridSheet
from pinxit.config import UsageError, to_json, unknown_name
from pinxit.sampling import Sampling
from pinxit.serve.engine.jobs import DrawRequest
from pinxit.serve.engine.limits import MOST_CHARACTERS, check_side_lengths
from pinxit.serve.engine.models import ModelEntry
from pinxit.serve.settings import StudioConfig

FIELDS = ("axes", "settings", "model")
"""The fields of a request."""
MOST_CELLS = 1000
"""The largest number of pictures of a grid."""
PAGE_SETTINGS = ("batch_size", "encoder_dtype", "checkpoint", "ema")
"""Settings of `pinxit grid` that follow from the server's models."""


@dataclass(frozen=True)
class DrawnGrid:
    """A grid with the recipe of each cell, which its sheet shows."""

    grid: Grid
    """The axes, the settings and the cells."""
    recipes: list[dict[str, Any]]
    """The recipe of each cell."""


@dataclass(frozen=True)
class GridPlan:
    """A checked grid, and the model that draws each cell."""

    grid: Grid
    """The axes, the settings and the cells."""
    models: tuple[ModelEntry, ...]
    """The model of each cell."""
    settings: tuple[Sampling, ...]
    """The sampling settings of each cell, with the model's defaults."""
    sizes: tuple[tuple[int, int], ...]
    """The width and the height of each cell."""

    def requests(self) -> list[DrawRequest]:
        """Returns the request for the picture of each cell."""
        return [
            DrawRequest(
                prompt=cell.settings["prompt"],
                negative_prompt=cell.settings["negative_prompt"],
                model=model.id,
                seed=cell.settings.get("seed", 0),
                size=cell.settings.get("size"),
                sampling=sampling_of(cell.settings),
            )
            for cell, model in zip(self.grid.cells(), self.models, strict=True)
        ]

    def order(self) -> list[int]:
        """Returns the numbers of the cells in an order that changes models and programs rarely."""
        first = {entry.id: i for i, entry in reversed([*enumerate(self.models)])}

        def program(cell: int) -> tuple[Any, ...]:
            chosen = self.settings[cell]
            return first[self.models[cell].id], self.sizes[cell], chosen.solver, chosen.steps

        return sorted(range(len(self.models)), key=program)

    @property
    def sheet_size(self) -> tuple[int, int]:
        """The width and the height of the sheet. Raises `UsageError` if it is too large."""
        recipes = [
            {
                "size": list(size),
                "model": model.id,
                "model_hash": "",
                **to_json(settings),
            }
            for model, settings, size in zip(self.models, self.settings, self.sizes, strict=True)
        ]
        return GridSheet(DrawnGrid(self.grid, recipes)).size


def planned_grid(
    data: Mapping[str, Any], find: Callable[[str | None], ModelEntry], config: StudioConfig
) -> GridPlan:
    """Returns the grid that a request describes, checked against its models.

    ``{"axes": ["steps=4,8", "seed=0-3"], "settings": {"prompt": "a red house"}, "model": null}``
    has axes as `pinxit grid` takes them, but models have the names of the studio. `find` returns
    the model of a name, with its facts. Raises `UsageError`.
    """
    grid = requested_grid(data)
    names = dict.fromkeys(_model_name(cell) for cell in grid.cells())
    models = {name: find(name) for name in names}
    chosen = [models[_model_name(cell)] for cell in grid.cells()]
    settings, sizes = [], []
    for cell, model in zip(grid.cells(), chosen, strict=True):
        assert model.sampling is not None and model.image_size is not None
        sampling = model.sampling.override(**sampling_of(cell.settings))
        _at_most("steps", sampling.steps, config.max_steps)
        size = cell.settings.get("size") or (model.image_size, model.image_size)
        check_side_lengths(size, model.image_size, config)
        for side in size:
            if side % (model.unit or 1):
                valid = f"multiples of {model.unit}"
                raise UsageError("size", side, problem="not drawable by the model", valid=valid)
        settings.append(sampling)
        sizes.append(size)
    check_guidance_used(grid, [to_json(sampling) for sampling in settings])
    grid = with_paths(grid, {name: model.path for name, model in models.items()})
    return GridPlan(grid, tuple(chosen), tuple(settings), tuple(sizes))


def with_paths(grid: Grid, paths: Mapping[str | None, str | None]) -> Grid:
    """Returns a grid whose checkpoints are the paths that `pinxit grid` takes."""
    axes = tuple(
        Axis(axis.name, tuple(paths[name] for name in axis.values))
        if axis.name == "checkpoint"
        else axis
        for axis in grid.axes
    )
    settings = dict(grid.settings)
    if "checkpoint" in settings and settings["checkpoint"] in paths:
        settings["checkpoint"] = paths[settings["checkpoint"]]
    elif None in paths and paths[None] is not None:
        settings["checkpoint"] = paths[None]
    if settings.get("checkpoint", "") is None:
        del settings["checkpoint"]
    return Grid(axes, settings)


def requested_grid(data: Mapping[str, Any]) -> Grid:
    """Returns the grid that a request describes, without a look at the models."""
    for name in data:
        if name not in FIELDS:
            raise unknown_name(f"{name:.80}", FIELDS)
    axes, settings, model = (data.get(name) for name in FIELDS)
    if not isinstance(axes, list) or not axes or not all(isinstance(axis, str) for axis in axes):
        valid = 'a list of one to three texts, such as ["steps=4,8"]'
        raise UsageError("axes", str(axes)[:80], problem="not a list of axes", valid=valid)
    if not isinstance(settings or {}, dict):
        raise UsageError("settings", str(settings)[:80], problem="not an object")
    if model is not None and not isinstance(model, str):
        raise UsageError("model", str(model)[:80], problem="not a name")
    if any(len(axis) > MOST_CHARACTERS for axis in axes):
        raise UsageError(
            "axes", "an axis", problem="too long", valid=f"up to {MOST_CHARACTERS} characters"
        )
    chosen = {name: _setting(str(name), value) for name, value in (settings or {}).items()}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if model is not None:
        chosen["checkpoint"] = model
    grid = Grid(tuple(Axis.parse(axis) for axis in axes[:4]), chosen)
    _at_most("axes", len(grid), MOST_CELLS)
    return grid


def _setting(name: str, value: Any) -> Any:
    """Returns a setting's value as a grid has it. Raises `UsageError` for another type."""
    if name in PAGE_SETTINGS:
        raise UsageError(name[:80], str(value)[:80], problem="not a setting of the page")
    if name in ("prompt", "negative_prompt"):
        if value is not None and not isinstance(value, str):
            raise UsageError(name, str(value)[:80], problem="not a text")
        if value is not None and len(value) > MOST_CHARACTERS:
            valid = f"at most {MOST_CHARACTERS:,} characters"
            raise UsageError(name, f"{value[:40]}...", problem="too long", valid=valid)
        return value or None
    if name == "seed" and value is not None and type(value) is not int:
        raise UsageError(name, str(value)[:80], problem="not a whole number")
    if name == "size" and value is not None:
        if not isinstance(value, str) or len(value) > 40:
            valid = "a text, such as 64x96"
            raise UsageError(name, str(value)[:80], problem="not a size", valid=valid)
        return width_and_height(value)
    return value


def _model_name(cell: Cell) -> str | None:
    """Returns the studio's name of the model that draws a cell; None is the default one."""
    checkpoint, ema = cell.model
    if ema is not None:
        problem, valid = "not possible in the studio", "pinxit grid, which loads averages"
        raise UsageError("ema", ema, problem=problem, valid=valid)
    return checkpoint


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise UsageError(field, value, problem="too large", valid=f"at most {limit:,}")
