"""Contact sheets: a labelled row for each prompt, a labelled column for each set of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from pinxit.drawn_text import draw_text, wrapped

MARGIN = 8
TEXT_WIDTH = 190
LINE = 15
SIZE = 12


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
    lines = [wrapped(prompt, width=TEXT_WIDTH - 2 * MARGIN, size=SIZE) for prompt in prompts]
    heights = [max(cell, LINE * len(text)) + MARGIN for text in lines]
    head = MARGIN + LINE * (2 if title else 1)
    width = TEXT_WIDTH + sum(count * (cell + 2) + MARGIN for count in groups.values()) + MARGIN
    sheet = Image.new("RGB", (width, head + sum(heights) + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw_text(draw, (MARGIN, MARGIN // 2), title, size=SIZE, fill="black")
    left = TEXT_WIDTH
    for label, rows in columns.items():
        draw_text(draw, (left, head - LINE), label, size=SIZE, fill="black")
        top = head
        for pictures, height in zip(rows, heights, strict=True):
            for i, picture in enumerate(pictures):
                side = max(picture.size)
                across, down = (max(1, round(cell * part / side)) for part in picture.size)
                scaled = picture.convert("RGB").resize((across, down), _filter(side, cell))
                sheet.paste(scaled, (left + i * (cell + 2), top))
            top += height
        left += groups[label] * (cell + 2) + MARGIN
    top = head
    for text, height in zip(lines, heights, strict=True):
        for number, line in enumerate(text):
            draw_text(draw, (MARGIN, top + number * LINE), line, size=SIZE, fill="black")
        top += height
    return sheet


def _filter(side: int, cell: int) -> Image.Resampling:
    """Returns the scaling filter: pixels are repeated for whole multiples, otherwise
    interpolated."""
    whole = cell % side == 0
    return Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
