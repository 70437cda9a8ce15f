"""Contact sheets: a labelled row for each prompt, a labelled column for each set of parameters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pinxit.files import whole
from pinxit.labelled_sheet import Box, LabelledSheet, Panel

CELLS = "pinxit_cells"
"""The text of a sheet's PNG that says where its pictures are."""


def contact_sheet(
    prompts: Sequence[str],
    columns: Mapping[str, Sequence[Sequence[Image.Image]]],
    *,
    title: str = "",
    cell: int = 128,
) -> Image.Image:
    """Draws a contact sheet. ``columns[label][i]`` are the images of prompt i, shown side by
    side. The longer side of an image gets `cell` pixels."""
    groups = {label: max(len(pictures) for pictures in rows) for label, rows in columns.items()}
    labels = [text for label, n in groups.items() for text in (label, *[""] * (n - 1))]
    table: list[list[Image.Image | None]] = []
    for i in range(len(prompts)):
        row: list[Image.Image | None] = []
        for label, rows in columns.items():
            pictures = [_scaled(picture, cell) for picture in rows[i]]
            row += [*pictures, *itertools.repeat(None, groups[label] - len(pictures))]
        table.append(row)
    sizes = [[picture.size if picture else (0, 0) for picture in row] for row in table]
    panel = Panel(columns=labels, rows=list(prompts), sizes=sizes)
    layout = LabelledSheet([panel], title=title)
    sheet = layout.draw([table])
    sheet.info[CELLS] = json.dumps(_cells(prompts, groups, layout.boxes()))
    return sheet


def _cells(
    prompts: Sequence[str], groups: Mapping[str, int], boxes: Sequence[Sequence[Box]]
) -> list[dict[str, Any]]:
    """Returns the prompt, the label, the number and the box of each picture of a sheet."""
    columns = [(label, i) for label, count in groups.items() for i in range(count)]
    return [
        {"prompt": prompt, "label": label, "number": number, "box": list(box)}
        for prompt, row in zip(prompts, boxes, strict=True)
        for (label, number), box in zip(columns, row, strict=True)
        if box[2]
    ]


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a contact sheet as a PNG whose text says where its pictures are."""
    texts = PngInfo()
    if CELLS in sheet.info:
        texts.add_itxt(CELLS, sheet.info[CELLS])
    with whole(path) as temporary:
        sheet.save(temporary, "PNG", pnginfo=texts)


def cells_of(sheet: Image.Image) -> list[dict[str, Any]]:
    """Returns the cells of a sheet that `save_sheet` wrote: prompt, label, number and box. Returns
    none for any other picture."""
    sheet.load()
    try:
        cells = json.loads(sheet.info.get(CELLS, "[]"))
    except (ValueError, TypeError, RecursionError):
        return []
    return [cell for cell in cells if _is_cell(cell)] if isinstance(cells, list) else []


def _is_cell(cell: Any) -> bool:
    """Returns whether a value of JSON has the form of a cell."""
    if not isinstance(cell, dict) or set(cell) != {"prompt", "label", "number", "box"}:
        return False
    texts = isinstance(cell["prompt"], str) and isinstance(cell["label"], str)
    box = cell["box"]
    whole_numbers = isinstance(box, list) and len(box) == 4
    return (
        texts
        and whole_numbers
        and all(type(value) is int and value >= 0 for value in (*box, cell["number"]))
    )


def _scaled(picture: Image.Image, cell: int) -> Image.Image:
    """Returns the picture with its longer side scaled to `cell` pixels: pixels are repeated for
    whole multiples, otherwise interpolated."""
    side = max(picture.size)
    width, height = (max(1, round(cell * part / side)) for part in picture.size)
    whole = cell % side == 0
    scaling = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((width, height), scaling)
