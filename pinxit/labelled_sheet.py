"""Draws tables of pictures as one sheet, with a label for every row and every column.

The layout follows from the labels and the sizes of the pictures, so that the size of a sheet is
known before any picture is. Pictures keep their pixels and stand at the upper left of their places.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pinxit.drawn_text import draw_text, text_width, wrapped

MARGIN, BETWEEN = 12, 24
"""Pixels around the sheet, and between panels."""
GAP = 6
"""Pixels between two pictures, and between a label and its picture."""
SIZE, LINE = 13, 18
"""Size of the labels' font, and the distance of two lines, in pixels."""
LARGE, LARGE_LINE = 16, 22
"""The same of the sheet's title."""
NARROWEST, WIDEST = 60, 220
"""The least width of a column, and the largest width of the labels of rows."""
LEAST_WIDTH = 420
"""The least width of a sheet, so that its title takes few lines."""
TITLE_LINES, LABEL_LINES = 6, 10
"""Numbers of lines of a title and of a label, after which an ellipsis follows."""
ASPECT = 1.5
"""The ratio of width to height that the arrangement of panels comes close to."""
GREY, FRAME = "#555555", "#cccccc"
"""The colours of secondary text and of the line around a picture."""

Size = tuple[int, int]
"""A width and a height, in pixels."""
Box = tuple[int, int, int, int]
"""Left, top, width and height of a picture in a sheet, in pixels."""


@dataclass(frozen=True)
class Panel:
    """A table of pictures with labels."""

    columns: Sequence[str]
    """The label of each column. A column whose label is empty belongs to the label before it."""
    rows: Sequence[str]
    """The label of each row; all empty for a panel without labels of rows."""
    sizes: Sequence[Sequence[Size]]
    """The size of each picture of each row; (0, 0) leaves a place empty."""
    title: str = ""
    """The line above the panel."""
    of_columns: str = ""
    """The name of what the columns vary."""
    of_rows: str = ""
    """The name of what the rows vary."""

    @property
    def spans(self) -> list[range]:
        """The columns that each label of a column belongs to."""
        starts = [i for i, label in enumerate(self.columns) if label or i == 0]
        ends = [*starts[1:], len(self.columns)]
        return [range(start, end) for start, end in zip(starts, ends, strict=True)]


class LabelledSheet:
    """The layout of panels below a title and lines of text. `draw` adds the pictures."""

    def __init__(
        self,
        panels: Sequence[Panel],
        *,
        title: str = "",
        lines: Sequence[str] = (),
        panels_per_line: int | None = None,
    ) -> None:
        label_width, (widths, heights) = _label_width(panels), _largest(panels)
        self._panels = [_PlacedPanel(panel, label_width, widths, heights) for panel in panels]
        widths, heights = zip(*(panel.size for panel in self._panels), strict=True)
        self._slot: Size = (max(widths), max(heights))
        counts = [panels_per_line] if panels_per_line else range(1, len(panels) + 1)
        self._per_line = min(counts, key=self._distance)
        across, down = self._extent(self._per_line)
        width = max(across, LEAST_WIDTH if title or lines else 0)
        self._title = _lines(title, width, LARGE, TITLE_LINES)
        self._text = [part for line in lines for part in _lines(line, width, SIZE, TITLE_LINES)]
        head = len(self._title) * LARGE_LINE + len(self._text) * LINE
        self._head = head + GAP if head else 0
        self.size: Size = (width + 2 * MARGIN, self._head + down + 2 * MARGIN)
        """Width and height of the sheet, in pixels."""

    def _extent(self, per_line: int) -> Size:
        """Returns width and height of the panels, without the margin around all."""
        count = -(-len(self._panels) // per_line)
        width, height = self._slot
        return per_line * (width + BETWEEN) - BETWEEN, count * (height + BETWEEN) - BETWEEN

    def _distance(self, per_line: int) -> float:
        """Returns how far the shape with this many panels in a line is from `ASPECT`."""
        width, height = self._extent(per_line)
        ratio = width / height / ASPECT
        return max(ratio, 1 / ratio)

    def draw(self, pictures: Sequence[Sequence[Sequence[Image.Image | None]]]) -> Image.Image:
        """Returns the sheet. ``pictures[panel][row][column]`` have the sizes of the layout."""
        sheet = Image.new("RGB", self.size, "white")
        draw = ImageDraw.Draw(sheet)
        top = MARGIN
        for line in self._title:
            draw_text(draw, (MARGIN, top), line, size=LARGE, fill="black")
            top += LARGE_LINE
        for line in self._text:
            draw_text(draw, (MARGIN, top), line, size=SIZE, fill=GREY)
            top += LINE
        for i, (panel, rows) in enumerate(zip(self._panels, pictures, strict=True)):
            panel.draw(sheet, draw, self._corner(i), rows)
        return sheet

    def _corner(self, panel: int) -> Size:
        """Returns the upper left corner of a panel."""
        down, across = divmod(panel, self._per_line)
        left = MARGIN + across * (self._slot[0] + BETWEEN)
        return left, MARGIN + self._head + down * (self._slot[1] + BETWEEN)

    def boxes(self, panel: int = 0) -> list[list[Box]]:
        """Returns where the pictures of a panel are, by row and column."""
        return self._panels[panel].boxes(self._corner(panel))


class _PlacedPanel:
    """The places of a panel's labels and pictures, from its upper left corner."""

    def __init__(
        self, panel: Panel, label_width: int, widths: Sequence[int], heights: Sequence[int]
    ) -> None:
        self.panel = panel
        columns = [max(NARROWEST, width) + GAP for width in widths[: len(panel.columns)]]
        self.lefts = [*itertools.accumulate(columns, initial=label_width)]
        spans = [(self.lefts[s.start], self.lefts[s.stop] - GAP) for s in panel.spans]
        labels = [panel.columns[span.start] for span in panel.spans]
        texts = list(zip(labels, [right - left for left, right in spans], strict=True))
        self.heads = list(zip([left for left, _ in spans], _labels(texts), strict=True))
        width = self.lefts[-1] - GAP
        self.title = _lines(panel.title, width, SIZE, TITLE_LINES)
        # The name of the columns is above the first label, beside taller labels if there are any.
        first, highest = len(self.heads[0][1]), max(len(lines) for _, lines in self.heads)
        beside = texts[0][1] if highest > first else width - label_width
        self.name = _lines(panel.of_columns, beside, SIZE, TITLE_LINES)
        room = label_width - GAP
        self.sides = _labels([(label, room) for label in panel.rows]) if room > 0 else []
        self.side = _lines(panel.of_rows, room, SIZE, TITLE_LINES) if room > 0 else []
        below = max(highest, first + len(self.name), len(self.side))
        self.name_top = (len(self.title) + below - first - len(self.name)) * LINE
        self.head = (len(self.title) + below) * LINE
        rows = [height + GAP for height in heights[: len(panel.rows)]]
        for i, lines in enumerate(self.sides):
            rows[i] = max(rows[i], len(lines) * LINE + GAP)
        self.tops = [*itertools.accumulate(rows, initial=self.head)]
        self.size: Size = (width, self.tops[-1] - GAP)

    def boxes(self, at: Size) -> list[list[Box]]:
        """Returns the boxes of the pictures of a panel whose upper left corner is at `at`."""
        rows = zip(self.panel.sizes, self.tops, strict=False)
        return [
            [
                (at[0] + left, at[1] + top, *size)
                for size, left in zip(sizes, self.lefts, strict=False)
            ]
            for sizes, top in rows
        ]

    def draw(
        self,
        sheet: Image.Image,
        draw: ImageDraw.ImageDraw,
        at: Size,
        rows: Sequence[Sequence[Image.Image | None]],
    ) -> None:
        """Draws the panel with its upper left corner at `at`."""

        def write(lines: Sequence[str], left: int, top: int, fill: str = "black") -> None:
            for i, line in enumerate(lines):
                where = at[0] + left, at[1] + top + i * LINE
                draw_text(draw, where, line, size=SIZE, fill=fill)

        write(self.title, 0, 0)
        write(self.name, self.lefts[0], self.name_top, GREY)
        write(self.side, 0, self.head - len(self.side) * LINE, GREY)
        for left, lines in self.heads:
            write(lines, left, self.head - len(lines) * LINE)
        for lines, top in zip(self.sides, self.tops, strict=False):
            write(lines, 0, top)
        for row, boxes in zip(rows, self.boxes(at), strict=False):
            for picture, (x, y, *size) in zip(row, boxes, strict=False):
                if picture is None:
                    continue
                if picture.size != tuple(size):
                    raise ValueError(f"a picture of {picture.size} in the place of one of {size}")
                draw.rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=FRAME)
                sheet.paste(picture.convert("RGB"), (x, y))


def _largest(panels: Sequence[Panel]) -> tuple[list[int], list[int]]:
    """Returns the width of each column and the height of each row, which all panels share."""
    columns = itertools.zip_longest(
        *([size[0] for size in row] for panel in panels for row in panel.sizes), fillvalue=0
    )
    rows = itertools.zip_longest(
        *([max(size[1] for size in row) for row in panel.sizes] for panel in panels), fillvalue=0
    )
    return [max(widths) for widths in columns], [max(heights) for heights in rows]


def _label_width(panels: Sequence[Panel]) -> int:
    """Returns the width of the labels of rows and the gap behind them, in all panels."""
    texts = [text for panel in panels for text in (*panel.rows, panel.of_rows) if text]
    if not texts:
        return 0
    # One pixel more, since a line of exactly the width may be measured a little longer.
    return min(WIDEST, 1 + int(max(text_width(text, SIZE) for text in texts))) + GAP


def _lines(text: str, width: int, size: int, most: int | None) -> list[str]:
    """Splits a text into lines; an empty text has none."""
    return wrapped(text, width=width, size=size, lines=most) if text else []


def _labels(texts: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Splits labels, each with its width, into lines. They are cut after `LABEL_LINES` lines unless
    two labels would look the same then."""
    cut = [_lines(text, width, SIZE, LABEL_LINES) for text, width in texts]
    different = {text for text, _ in texts}
    if len({tuple(lines) for lines in cut}) == len(different):
        return cut
    return [_lines(text, width, SIZE, None) for text, width in texts]
