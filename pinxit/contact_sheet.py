"""Contact sheets: a labelled row for each prompt, a labelled column for each set of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from PIL import Image

from pinxit.labelled_sheet import LabelledSheet, Panel


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
    return LabelledSheet([panel], title=title).draw([table])


def _scaled(picture: Image.Image, cell: int) -> Image.Image:
    """Returns the picture with its longer side scaled to `cell` pixels: pixels are repeated for
    whole multiples, otherwise interpolated."""
    side = max(picture.size)
    width, height = (max(1, round(cell * part / side)) for part in picture.size)
    whole = cell % side == 0
    scaling = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((width, height), scaling)
