"""The layout of labelled sheets: nothing is cut off, pictures keep their pixels and are aligned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from pinxit import labelled_sheet
from pinxit.drawn_text import text_width
from pinxit.labelled_sheet import LINE, LabelledSheet, Panel

LONG = "a large purple castle on the right, the desert at noon, under the sun, clear sky " * 3


def pictures_of(panels: list[Panel]) -> list[list[list[Image.Image | None]]]:
    """Returns a picture of a colour of its own for every place of the panels."""
    numbers = itertools.count(1)
    return [
        [
            [Image.new("RGB", size, (next(numbers), 0, 255)) if size[0] else None for size in row]
            for row in panel.sizes
        ]
        for panel in panels
    ]


def boxes(sheet: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """Returns the box of each picture of `pictures_of` on the sheet."""
    pixels = np.asarray(sheet)
    masks = [(pixels == (number, 0, 255)).all(-1) for number in range(1, count + 1)]
    return [Image.fromarray(mask).getbbox() for mask in masks]


PANELS = {
    "tiny": [Panel(["1"], [""], [[(1, 1)]])],
    "narrow columns": [Panel([LONG, "b" * 90], ["r"], [[(8, 8), (8, 8)]], of_columns="prompt")],
    "long rows": [Panel(["1", "2"], [LONG, "x" * 200], [[(64, 64)] * 2] * 2, of_rows="y" * 80)],
    "sizes differ": [
        Panel(["1", "2"], ["a", "b"], [[(64, 32), (32, 64)], [(16, 16), (96, 96)]], title="z: 1"),
        Panel(["1", "2"], ["a", "b"], [[(10, 10), (10, 10)]] * 2, title=LONG),
    ],
    "panels": [
        Panel(["1", "2"], [""], [[(200, 64)] * 2], title=f"z: {i}", of_columns="steps")
        for i in range(5)
    ],
    "unequal lines": [
        Panel(["1", "2", "3"], [""], [[(64, 64)] * 3]),
        Panel(["4"], [""], [[(64, 64)]]),
    ],
    "groups": [Panel(["raw", "", "ema"], ["a"], [[(64, 64), (0, 0), (64, 64)]])],
    "scripts": [Panel(["中文房子", "Ωμέγα ж", "\u202eعربى"], ["\t"], [[(64, 64)] * 3])],
}


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("title", ["", "a", LONG, "w" * 400])
def test_labels_and_pictures_are_inside_the_sheet(name, title, monkeypatch):
    """Each line of text is recorded where it is drawn; no two of them overlap."""
    lines = []

    def recorded(draw, at, text, *, size, fill):
        lines.append((at[0], at[1], at[0] + text_width(text, size), at[1] + size * 1.3))
        original(draw, at, text, size=size, fill=fill)

    original = labelled_sheet.draw_text
    monkeypatch.setattr(labelled_sheet, "draw_text", recorded)
    panels = PANELS[name]
    layout = LabelledSheet(panels, title=title, lines=["steps 4"] if title else [])
    pictures = pictures_of(panels)
    sheet = layout.draw(pictures)
    assert sheet.size == layout.size
    there = [picture for panel in pictures for row in panel for picture in row if picture]
    placed = boxes(sheet, len(there))
    for box, picture in zip(placed, there, strict=True):
        assert (box[2] - box[0], box[3] - box[1]) == picture.size
    for left, top, right, bottom in [*lines, *placed]:
        assert 0 <= left <= right <= sheet.width and 0 <= top < bottom <= sheet.height
    for one, other in itertools.combinations([*lines, *placed], 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{one} and {other} overlap"


def test_nothing_is_drawn_on_the_outermost_pixels():
    sheet = np.asarray(
        LabelledSheet(PANELS["sizes differ"], title="gjpq|" * 40).draw(
            pictures_of(PANELS["sizes differ"])
        )
    )
    for edge in (sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]):
        assert (edge == 255).all()


def test_pictures_of_different_sizes_are_aligned_in_all_panels():
    panels = PANELS["sizes differ"]
    layout = LabelledSheet(panels, panels_per_line=1)
    places = boxes(layout.draw(pictures_of(panels)), 8)
    lefts, tops = [box[0] for box in places], [box[1] for box in places]
    assert lefts[0::2] == [lefts[0]] * 4 and lefts[1::2] == [lefts[1]] * 4
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4] == tops[5] < tops[6] == tops[7]


def test_panels_are_arranged_close_to_the_shape_of_a_screen():
    wide = LabelledSheet([Panel(["1"], [""], [[(400, 50)]])] * 4).size
    tall = LabelledSheet([Panel(["1"], [""], [[(50, 400)]])] * 4).size
    assert wide[0] < 900 and tall[1] < 900


def test_long_labels_are_cut_unless_they_would_look_the_same():
    words = "word " * 200
    one = LabelledSheet([Panel([words, "b"], [""], [[(64, 64)] * 2])])
    two = LabelledSheet([Panel([words + "a", words + "b"], [""], [[(64, 64)] * 2])])
    assert one.size[1] < 64 + 14 * LINE < 64 + 50 * LINE < two.size[1]


def test_a_picture_of_another_size_is_a_bug():
    layout = LabelledSheet([Panel(["1"], [""], [[(8, 8)]])])
    with pytest.raises(ValueError, match="in the place of"):
        layout.draw([[[Image.new("RGB", (9, 8))]]])
