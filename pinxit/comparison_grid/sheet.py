"""Lays out a comparison grid as one labelled sheet, and writes the sheet as a PNG.

The PNG has two text chunks. ``parameters`` is the text of the first cell, with A1111's words for a
grid behind it (``Script: X/Y/Z plot, X Type: steps, X Values: "4,8"``). ``pinxit_grid`` is JSON:
the prompt, the axes and their values, the other settings, the models with their hashes, and the
command that makes the same bytes again (with the same fonts, on the same kind of device).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pinxit import extensions
from pinxit.comparison_grid.axes import spelled
from pinxit.comparison_grid.grid import (
    LIMIT,
    PLACES,
    Grid,
    GridRecipes,
    shared_values,
    too_large,
)
from pinxit.config import plain
from pinxit.drawn_text import drawable
from pinxit.labelled_sheet import LabelledSheet, Panel
from pinxit.picture_files import parameters_text, slug
from pinxit.picture_texts import PARAMETERS, SHEET
from pinxit.sampling import Sampling

SHOWN = 192
"""Pictures are enlarged by the largest whole multiple with at most this many pixels on a side."""
IN_A_LINE = 8
"""The largest number of pictures in a line of a grid with one axis."""
ALWAYS = ("seed", "size", "steps", "solver", "guidance_scale")
"""The settings that the sheet always shows; others if they differ from the defaults."""


class GridSheet:
    """The sheet of a grid. Its size is checked when it is made."""

    def __init__(self, prepared: GridRecipes) -> None:
        self.grid = prepared.grid
        sizes = [tuple(recipe["size"]) for recipe in prepared.recipes]
        self.scale = max(1, SHOWN // max(side for size in sizes for side in size))
        """The number of the sheet's pixels for a pixel of a picture, in each direction."""
        self._cells = _cells_of_panels(self.grid)
        shown = [(width * self.scale, height * self.scale) for width, height in sizes]
        self._layout = LabelledSheet(
            _panels(self.grid, self._cells, shown),
            title=str(self.grid.settings.get("prompt", "")),
            lines=_lines(self.grid, prepared.recipes),
            panels_per_line=1 if len(self.grid.axes) == 1 else None,
        )
        width, height = self.size
        if width * height > LIMIT:
            raise too_large(len(self.grid), f"{width:,} x {height:,} = {width * height:,}")

    @property
    def size(self) -> tuple[int, int]:
        """The width and the height of the sheet, in pixels."""
        return self._layout.size

    def draw(self, pictures: Sequence[Image.Image]) -> Image.Image:
        """Returns the sheet with the pictures of the cells."""

        def enlarged(picture: Image.Image) -> Image.Image:
            width, height = (side * self.scale for side in picture.size)
            return picture.resize((width, height), Image.Resampling.NEAREST)

        return self._layout.draw(
            [[[enlarged(pictures[cell]) for cell in row] for row in panel] for panel in self._cells]
        )


def _cells_of_panels(grid: Grid) -> list[list[list[int]]]:
    """Returns the number of the cell at ``[panel][row][column]``.

    A grid with one axis is split into lines, each of which is a panel.
    """
    counts = [len(axis.values) for axis in grid.axes]
    if len(counts) == 1:
        lines = -(-counts[0] // IN_A_LINE)
        each = -(-counts[0] // lines)
        starts = range(0, counts[0], each)
        return [[list(range(start, min(start + each, counts[0])))] for start in starts]
    across, down, deep = (*counts, 1)[:3]
    return [
        [[(z * down + y) * across + x for x in range(across)] for y in range(down)]
        for z in range(deep)
    ]


def _panels(
    grid: Grid, cells: list[list[list[int]]], sizes: Sequence[tuple[int, int]]
) -> list[Panel]:
    """Returns the labelled panels of a grid. `sizes` are those of the cells on the sheet."""
    x, y, z = (*grid.axes, None, None)[:3]
    assert x is not None
    all_columns = _different(x.labels)
    panels = []
    for number, rows in enumerate(cells):
        columns = [all_columns[cell % len(x.values)] for cell in rows[0]]
        panels.append(
            Panel(
                columns=columns,
                rows=_different(y.labels) if y else [""],
                sizes=[[sizes[cell] for cell in row] for row in rows],
                title=f"{z.title}: {_different(z.labels)[number]}" if z else "",
                of_columns=x.title if y or number == 0 else "",
                of_rows=y.title if y else "",
            )
        )
    return panels


def _different(labels: list[str]) -> list[str]:
    """Returns the labels, numbered if two of them would look the same, since the fonts of this
    machine lack their characters."""
    if len({drawable(label) for label in labels}) == len(labels):
        return labels
    return [f"{number}. {label}" for number, label in enumerate(labels, start=1)]


def _lines(grid: Grid, recipes: list[dict[str, Any]]) -> list[str]:
    """Returns the lines below the title: the negative prompt, the other settings, the models."""
    values = shared_values(grid, recipes)
    lines = []
    if negative := grid.settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {negative}")
    defaults = plain(Sampling())
    parts = []
    for name, several in values.items():
        if name in ALWAYS or (name in defaults and several != [defaults[name]]):
            texts = " or ".join(_spelled(name, value) for value in several)
            parts.append(f"{name} {texts}" + (" (by model)" if len(several) > 1 else ""))
    if dtype := grid.settings.get("encoder_dtype"):
        parts.append(f"encoder_dtype {dtype}")
    models = [f"{model['name']} ({model['hash']})" for model in _models(recipes)]
    label = "model" if len(models) == 1 else "models"
    return [*lines, ", ".join(parts), f"{label} {', '.join(models)}"]


def _spelled(name: str, value: Any) -> str:
    """Returns a value of a recipe as the sheet shows it."""
    if isinstance(value, list):
        return ("x" if name == "size" else "-").join(spelled(part) for part in value)
    return spelled(value)


def _models(recipes: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Returns name and hash of each model, in the order of the cells."""
    models = {(recipe["model"], recipe["model_hash"]): None for recipe in recipes}
    return [{"name": name, "hash": digest} for name, digest in models]


def grid_json(prepared: GridRecipes) -> dict[str, Any]:
    """Returns the JSON that the sheet's file holds. It has no paths of files that are written."""
    grid = prepared.grid
    hidden = ("model", "model_hash", "version", "prompt", "negative_prompt")
    values = shared_values(grid, prepared.recipes)
    settings: dict[str, Any] = {
        name: several[0] if len(several) == 1 else several
        for name, several in values.items()
        if name not in hidden
    }
    if dtype := grid.settings.get("encoder_dtype"):
        settings["encoder_dtype"] = dtype
    about = {
        "prompt": grid.settings.get("prompt"),
        "negative_prompt": grid.settings.get("negative_prompt", ""),
        "axes": [{"name": axis.name, "values": plain(axis.values)} for axis in grid.axes],
        "settings": settings,
        "models": _models(prepared.recipes),
        "command": grid.command,
        "version": prepared.recipes[0]["version"],
    }
    loaded = extensions.loaded()
    return plain(about | ({"extensions": loaded} if loaded else {}))


def grid_parameters(prepared: GridRecipes) -> str:
    """Returns the text of the first cell, followed by A1111's words for the axes."""
    parts = [parameters_text(prepared.recipes[0]), "Script: X/Y/Z plot"]
    for place, axis in zip(PLACES, prepared.grid.axes, strict=False):
        listed = json.dumps(axis.written.partition("=")[2], ensure_ascii=False)
        parts += [f"{place.upper()} Type: {axis.name}", f"{place.upper()} Values: {listed}"]
    return ", ".join(parts)


def grid_bytes(prepared: GridRecipes, sheet: Image.Image) -> bytes:
    """Encodes the sheet as a PNG. Equal sheets of equal grids give equal bytes."""
    info = PngInfo()
    info.add_itxt(PARAMETERS, grid_parameters(prepared))
    info.add_itxt(SHEET, json.dumps(grid_json(prepared), ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def grid_file_name(about: Mapping[str, Any]) -> str:
    """Returns the name of a sheet's file: the start of its prompt, and a hash of its JSON."""
    data = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
    title = slug(about["prompt"] or "prompts")
    return f"grid-{title}-{hashlib.sha256(data).hexdigest()[:8]}.png"


def stored_grid(path: Path) -> Mapping[str, Any] | None:
    """Returns the JSON in the PNG of a sheet, or None if the file is no undamaged sheet."""
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {})
        about = json.loads(text[SHEET])
    except (KeyError, OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for damage
        return None
    return about if isinstance(about, dict) else None
