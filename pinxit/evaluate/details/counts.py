"""Counts and positions of details, read from the pixels of a picture of a scene.

Every reading is made of every picture, since an extractor knows no scenes. `catalogue` says which
readings mean something for which scenes, and tests measure their errors on renders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from pinxit.evaluate.details.palette import SIDE, Palette, Pixels, palette_of
from pinxit.evaluate.details.regions import Region, close_to, maxima, regions
from pinxit.evaluate.extractors.base import Picture

VERSION = 1
"""Changes whenever a reading changes, so that stored readings are not mistaken for new ones."""
THING_COLOURS = ("red", "yellow", "purple")
"""The colours of things that are read; the others are also those of the land or of snow."""
ABSENT = -1.0
"""The position of what a picture does not show."""
MAP = (3, 8)
"""The rows and columns of the map of stars: cells of eight pixels, in the upper 24 rows."""
SPECK_ROWS = 28
"""Stars and flakes are counted above this row, which most mountains do not reach."""
SPECK_AREA = 14
"""The largest area of a star or flake, in pixels; the moon and clouds are larger."""
BRIGHTER = 20.0
"""The least difference of a star from the sky, in grey values."""
LIGHTER = 10.0
"""The least difference of flakes and streaks from the pixels beside them, in grey values."""
GAP = 3
"""Number of pixels of other colours, such as flakes, that may interrupt a column of land."""
ALIKE = 45.0
"""Largest distance from a colour, summed over channels, of pixels that have it."""


def _at_64(picture: Picture) -> Pixels:
    if picture.shape[:2] != (SIDE, SIDE):
        picture = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))
    return picture.astype(np.float64)


def _stars(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts small regions that are brighter than the sky, and maps them."""
    above = (picture - palette.sky[:, None])[:SPECK_ROWS].mean(-1)
    offset = np.median(above[np.abs(above) < BRIGHTER]) if (np.abs(above) < BRIGHTER).any() else 0
    stars = [part for part in regions(above - offset > BRIGHTER) if part.area <= SPECK_AREA]
    yield "stars", len(stars)
    counts = np.zeros(MAP)
    for star in stars:
        _spread(counts, star)
    for (row, column), count in np.ndenumerate(counts):
        yield f"stars_{row}_{column}", count


def _falling(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts flakes of snow in the sky and streaks of rain in the whole picture."""
    grey = picture.mean(-1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(grey, ((0, 0), (4, 4)), "edge"), 9, 1)
    above = grey - np.median(around, -1)
    flakes = [part for part in regions(above[:SPECK_ROWS] > LIGHTER) if part.area <= SPECK_AREA]
    yield "flakes", sum(max(part.width, part.height) <= 5 and part.area >= 3 for part in flakes)
    streaks = [part for part in regions(above > LIGHTER) if 4 <= part.height <= 8]
    yield "streaks", sum(part.width <= 4 for part in streaks)


def _spread(counts: Float[np.ndarray, "r c"], star: Region) -> None:
    """Adds a star to the four nearest cells of the map, in proportion to its nearness."""
    across = np.maximum(0, 1 - np.abs((np.arange(MAP[1]) + 0.5) - star.x / 8))
    down = np.maximum(0, 1 - np.abs((np.arange(MAP[0]) + 0.5) - star.y / 8))
    share = np.outer(down, across)
    counts += share / share.sum() if share.sum() else 0


def _clouds(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts clouds, and measures the part of the upper 24 rows that they cover."""
    mask = close_to(picture[:24], [palette.clouds], ALIKE)
    yield "clouds", sum(part.area >= 8 for part in regions(mask))
    yield "cloud_cover", float(mask.mean())


def _discs(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts suns and moons, and reads the column of the largest."""
    mask = close_to(picture[:34], palette.discs, ALIKE)
    parts = [part for part in regions(mask) if part.area >= 12]
    yield "discs", len(parts)
    largest = max(parts, key=lambda part: part.area, default=None)
    yield "disc_x", ABSENT if largest is None else largest.x


def _peaks(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts the white caps of mountains, and reads their columns: left, middle and right."""
    mask = close_to(picture[:36], [palette.caps], ALIKE)
    mask[:18] = False
    caps = [part for part in regions(mask) if part.area >= 4]
    yield "peaks", len(caps)
    for name, low, high in (("left", 0, 19), ("middle", 19, 46), ("right", 46, 64)):
        here = [part for part in caps if low <= part.x < high]
        largest = max(here, key=lambda part: part.area, default=None)
        yield f"peak_{name}", ABSENT if largest is None else largest.x


def _skyline(picture: Pixels, colours: Sequence[np.ndarray]) -> Float[np.ndarray, " 64"]:
    """Returns the height above row 37 of the land of these colours in each column.

    Columns that a thing covers have the height 0.
    """
    mask = close_to(picture, colours, ALIKE)
    heights = np.zeros(SIDE)
    for x in np.flatnonzero(mask[34:38].any(axis=0)):
        top = y = 37
        while y > 0 and top - y <= GAP:
            top, y = (y if mask[y, x] else top), y - 1
        heights[x] = 37 - top
    return heights


def _trees(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts the tops of a forest's trees against the sky that no thing covers."""
    heights = _skyline(picture, palette.land("forest"))
    tops = [x for x in maxima(heights, prominence=2.0) if 2 < x < SIDE - 3]
    yield "trees", sum(heights[x - 1 : x + 2].min() > 0 for x in tops)


def _waves(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Counts the lines of light on the sea."""
    sea, shine = palette.waves
    rows = picture[40:50]
    along = (rows - sea) @ (shine - sea) / np.square(shine - sea).sum()
    off = np.abs(rows - (sea + np.clip(along, 0, 1)[..., None] * (shine - sea))).sum(-1)
    parts = regions((along > 0.3) & (off < ALIKE))
    yield "waves", sum(4 <= part.width <= 18 and part.height <= 3 for part in parts)


def _things(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Reads the column of the largest region of some colours that things have."""
    for colour in THING_COLOURS:
        parts = regions(close_to(picture, palette.thing(colour), 60.0))
        largest = max(parts, key=lambda part: part.area, default=None)
        seen = largest is not None and largest.area >= 12
        yield f"{colour}_x", largest.x if largest is not None and seen else ABSENT


def _sharpness(picture: Pixels, palette: Palette) -> Iterator[tuple[str, float]]:
    """Measures edges, fine texture and the number of colours."""
    grey = picture.mean(-1)
    yield "gradient", float(np.hypot(np.diff(grey, axis=0)[:, 1:], np.diff(grey)[1:]).mean())
    beside = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    yield "laplacian", float(np.abs(4 * grey[1:-1, 1:-1] - beside).mean())
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    frequency = np.fft.fftfreq(SIDE) * SIDE
    high = np.hypot(frequency[:, None], frequency[None]) > SIDE / 4
    yield "fine", float(power[high].sum() / max(power.sum(), 1e-9))
    cells = (picture // 16).reshape(-1, 3).astype(int) @ [256, 16, 1]
    counts = np.bincount(cells)
    yield "colours", int((counts >= 4).sum())


READERS: Sequence[Callable[[Pixels, Palette], Iterator[tuple[str, float]]]] = (
    _stars,
    _falling,
    _clouds,
    _discs,
    _peaks,
    _trees,
    _waves,
    _things,
    _sharpness,
)


def readings(picture: Picture) -> dict[str, float]:
    """Returns all readings of a picture by name."""
    pixels = _at_64(picture)
    palette = palette_of(pixels)
    return {name: value for reader in READERS for name, value in reader(pixels, palette)}


class SceneDetails:
    """Reads all details of each picture, in the order of `names`."""

    name = "scene_details"
    names: tuple[str, ...] = tuple(readings(np.zeros((SIDE, SIDE, 3), np.uint8)))
    """The name of each column."""

    @property
    def width(self) -> int:
        """The number of readings."""
        return len(self.names)

    def about(self) -> Mapping[str, Any]:
        """Returns the version of the readers and the resizing."""
        return {"name": self.name, "version": VERSION, "resize": f"box to {SIDE}"}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the readings of each picture."""
        return np.array([list(readings(picture).values()) for picture in pictures], np.float32)
