"""Draws the cells of a comparison grid.

One model is in memory at a time, and a text is encoded once for each. Cells that differ in their
prompt or seed alone are drawn in one order, as `pinxit generate` draws several pictures, and cells
of one compiled program follow one another. The picture of a cell has the same bytes as that of
`TextToImage.generate` with the cell's settings.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from pinxit import model_loading
from pinxit.arrays import Conditioning
from pinxit.comparison_grid.grid import Cell, Grid, check_guidance_used, sampling_of
from pinxit.config import UsageError
from pinxit.pipeline import TextToImage
from pinxit.sampling import Order

ModelKey = tuple[str | None, str | None]
"""A checkpoint and one of its averages; None means the default."""
Load = Callable[[str | None, str | None], TextToImage]
"""A function that loads the model of a checkpoint and an average."""
MOST_TEXTS = 64
"""The number of batches of texts whose conditioning is kept."""


@runtime_checkable
class Encode(Protocol):
    """A function that encodes texts, such as `TextToImage.encode`."""

    def __call__(self, captions: Sequence[str]) -> Conditioning: ...


def encoded_once(encode: Encode) -> Encode:
    """Returns `encode`, which keeps the conditioning of the last `MOST_TEXTS` batches of texts."""
    cached = functools.lru_cache(maxsize=MOST_TEXTS)(encode)

    def once(captions: Sequence[str]) -> Conditioning:
        return cached(tuple(captions))

    return once


class OneModel:
    """Loads models and holds the last one. The one before is released first."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.key: ModelKey | None = None
        """The checkpoint and the average of the model that is held."""
        self._model: TextToImage | None = None

    def get(self, key: ModelKey) -> TextToImage:
        """Returns the model of a checkpoint and an average."""
        if self._model is None or self.key != key:
            self.key = self._model = None
            gc.collect()  # frees arrays that are in reference cycles
            loaded = self._load(*key)
            # A copy, so that a caller's own model keeps its method.
            self._model = loaded.with_params(loaded.params)
            self._model.encode = encoded_once(loaded.encode)
            self.key = key
        return self._model


@dataclass(frozen=True)
class Group:
    """Cells that one model draws in one order."""

    key: ModelKey
    """The checkpoint and the average of the model."""
    order: Order
    """The pictures of the cells."""
    cells: tuple[int, ...]
    """The number of the cell of each picture."""


@dataclass(frozen=True)
class PreparedGrid:
    """A grid whose settings were checked with its models, ready to be drawn."""

    grid: Grid
    """The grid that is drawn."""
    recipes: list[dict[str, Any]]
    """The recipe of each cell, with which `TextToImage.generate` draws its picture."""
    groups: tuple[Group, ...]
    """The orders that draw the cells."""
    models: OneModel
    """The model that is in memory."""

    def pictures(self, *, skip: Collection[int] = ()) -> Iterator[tuple[int, Image.Image]]:
        """Yields each cell's number and picture when it is ready, without the cells in `skip`.

        Raises `UsageError` if a checkpoint has changed since the grid was prepared.
        """
        # The model that is in memory draws first.
        for group in sorted(self.groups, key=lambda group: group.key != self.models.key):
            places = frozenset(i for i, cell in enumerate(group.cells) if cell in skip)
            if len(places) == len(group.cells):
                continue
            # No variable refers to the model, so that it is released before the next is loaded.
            if self.models.get(group.key).model_hash != self.recipes[group.cells[0]]["model_hash"]:
                problem = "another model than when the grid was begun, since the run goes on"
                valid = "one of the run's checkpoints (RUN/checkpoints/step_...)"
                raise UsageError("checkpoint", group.key[0], problem=problem, valid=valid)
            for i, picture in self.models.get(group.key).pictures(group.order, skip=places):
                yield group.cells[i], picture


def prepared_grid(grid: Grid, *, load: Load | None = None) -> PreparedGrid:
    """Returns the grid with its recipes and orders. Loads each of its models once.

    `load` returns the model of a checkpoint and an average; by default these are paths, as in
    `load_checkpoint`. Raises `UsageError` for settings that a model refuses, and for those that
    have no effect in any cell. Only the last of several models stays in memory, so that drawing
    loads the others again.
    """
    models = OneModel(load or functools.partial(_stored, grid))
    cells = grid.cells()
    recipes: list[dict[str, Any]] = [{} for _ in cells]
    groups: list[Group] = []
    for key in dict.fromkeys(cell.model for cell in cells):
        groups += _checked_groups(models.get(key), key, cells, recipes)
    check_guidance_used(grid, recipes)
    return PreparedGrid(grid, recipes, tuple(groups), models)


def _checked_groups(
    model: TextToImage, key: ModelKey, cells: Sequence[Cell], recipes: list[dict[str, Any]]
) -> list[Group]:
    """Returns the orders of a model's cells by program, and sets the recipes of these cells."""
    groups = [_group(model, key, cells, members) for members in _alike(cells, key)]
    for group in groups:
        for i, cell in enumerate(group.cells):
            recipes[cell] = model.recipe(group.order, i)
    return sorted(groups, key=_program)


def _stored(grid: Grid, checkpoint: str | None, ema: str | None) -> TextToImage:
    """Loads a checkpoint with the encoder's dtype that the grid sets."""
    dtype = grid.settings.get("encoder_dtype", "float32")
    return model_loading.load_checkpoint(checkpoint, ema=ema, encoder_dtype=dtype)


def _alike(cells: Sequence[Cell], key: ModelKey) -> list[list[int]]:
    """Returns the numbers of a model's cells, in groups that differ in prompt and seed alone."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, cell in enumerate(cells):
        if cell.model != key:
            continue
        settings = sampling_of(cell.settings)
        # One negative prompt for a whole order, as in a call for one picture.
        shared = (cell.settings.get("size"), cell.settings.get("negative_prompt"))
        groups.setdefault((*shared, *settings.items()), []).append(i)
    return list(groups.values())


def _group(model: TextToImage, key: ModelKey, cells: Sequence[Cell], members: list[int]) -> Group:
    """Returns the order of cells that differ in prompt and seed alone."""
    settings = cells[members[0]].settings
    order = model.order(
        [cells[i].settings["prompt"] for i in members],
        negative_prompt=settings["negative_prompt"],
        seed=[cells[i].settings.get("seed", 0) for i in members],
        size=settings.get("size"),
        batch_size=settings.get("batch_size"),
        **sampling_of(settings),
    )
    return Group(key, order, tuple(members))


def _program(group: Group) -> tuple[Any, ...]:
    """Returns what the compiled program of a group depends on, for sorting."""
    sampling = group.order.sampling
    return group.order.size, sampling.steps, sampling.solver, float(sampling.guidance_scale)
