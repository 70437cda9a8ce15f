"""Readers of details agree with what renders show, as known from the calls of the drawing code."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
import rendered_details as truth

from pinxit.data.scenes.attributes import sample_scene
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.details.catalogue import COUNTS, positions_of
from pinxit.evaluate.details.counts import SceneDetails, readings
from pinxit.evaluate.details.palette import palette_of
from pinxit.evaluate.details.regions import maxima, regions
from pinxit.evaluate.extractors.base import Extractor

SEED = 777
FEW, MANY = 50, 500
ERRORS = {
    "stars": (0.8, 0.5),
    "mountain_peaks": (0.2, 0.2),
    "tree_tops": (1.6, 1.2),
    "clouds": (0.4, 0.3),
    "cloud_cover": (0.05, 0.05),
    "snowflakes": (2.0, 1.0),
    "rain_streaks": (3.2, 2.6),
    "waves": (0.5, 0.3),
    "suns_and_moons": (0.1, 0.1),
    "sun_or_moon": (1.2, 0.8),
    "peak_positions": (0.6, 0.4),
    "thing_position": (1.4, 0.5),
}
"""The largest mean absolute error and the largest mean error of each reading."""

Pairs = dict[str, list[tuple[float, float]]]
"""True and read values by the name of a detail."""


@cache
def pairs(count: int) -> Pairs:
    """Returns what renders show and what is read from them."""
    values: Pairs = defaultdict(list)
    for index in range(count):
        scene, where = sample_scene(SEED, index, split="any"), {"seed": SEED, "index": index}
        read = readings(render(scene, **where))
        for detail in COUNTS:
            if detail.name in truth.COUNTED and detail.shown(scene):
                true = truth.COUNTED[detail.name](scene, **where)
                values[detail.name].append((true, read[detail.reading]))
        for name, columns in positions_of(scene).items():
            true_columns = truth.true_positions(scene, columns, **where)
            for column, true in zip(columns, true_columns, strict=True):
                if true >= 0:
                    values[name].append((true, read[column]))
    return values


def within(count: int, slack: float) -> dict[str, tuple[float, float]]:
    """Returns the errors that are larger than allowed, by the name of a detail."""
    wrong = {}
    for name, (mean_error, bias) in ERRORS.items():
        true, read = np.array(pairs(count)[name]).T
        error = np.abs(read - true).mean(), abs((read - true).mean())
        if error[0] > mean_error * slack or error[1] > bias * slack:
            wrong[name] = error
    return wrong


def test_readers_agree_with_a_few_renders():
    assert within(FEW, 1.5) == {}


@pytest.mark.slow
def test_readers_agree_with_many_renders():
    assert all(len(pairs(MANY)[name]) >= 15 for name in ERRORS)
    assert within(MANY, 1.0) == {}


def test_each_counted_detail_has_a_measured_error():
    everywhere = {detail.name for detail in COUNTS if detail.name not in ERRORS}
    assert everywhere == {"gradient", "laplacian", "fine_texture", "colours"}


def test_the_time_is_read_from_the_sky():
    scenes = [sample_scene(SEED, index, split="any") for index in range(FEW)]
    pictures = [render(scene, seed=SEED, index=i) for i, scene in enumerate(scenes)]
    right = [
        palette_of(p.astype(float)).time == s.time for p, s in zip(pictures, scenes, strict=True)
    ]
    assert np.mean(right) > 0.98


def test_a_row_depends_on_its_picture_alone():
    extractor = SceneDetails()
    assert isinstance(extractor, Extractor)
    pictures = [render(sample_scene(1, i, split="any"), seed=1, index=i) for i in range(4)]
    rows = extractor(pictures, [""] * 4)
    assert rows.shape == (4, extractor.width) and rows.dtype == np.float32
    for picture, row in zip(pictures, rows, strict=True):
        np.testing.assert_array_equal(extractor([picture], ["other"])[0], row)


def test_larger_pictures_are_averaged_to_64_pixels():
    picture = render(sample_scene(1, 3, split="any"), seed=1, index=3)
    assert readings(picture.repeat(3, axis=0).repeat(3, axis=1)) == readings(picture)


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_colour_has_no_details(value):
    read = readings(np.full((64, 64, 3), value, np.uint8))
    assert all(np.isfinite(list(read.values())))
    for name in ("stars", "flakes", "streaks", "trees", "waves", "gradient", "laplacian", "fine"):
        assert read[name] == 0, name


def test_regions_are_connected_by_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert [(p.area, p.x, p.y, p.width, p.height) for p in regions(mask)] == [
        (1, 0.5, 3.5, 1, 1),
        (2, 1.0, 1.0, 2, 2),
        (2, 3.5, 1.0, 1, 2),
    ]
    assert regions(np.zeros((3, 3), bool)) == []


def test_regions_follow_a_spiral():
    mask = np.zeros((9, 9), bool)
    mask[0, :], mask[:, 8], mask[8, :], mask[2:, 0], mask[2, :7], mask[2:7, 6] = [True] * 6
    assert [part.area for part in regions(mask)] == [mask.sum()]


@pytest.mark.parametrize(
    ("line", "tops"),
    [
        ([0, 3, 0, 3, 0], [1, 3]),
        ([5, 0, 0, 5], [0, 3]),
        ([0, 3, 2, 3.5, 0], [3]),
        ([1, 1, 1], []),
        ([0, 1, 2, 3], [3]),
    ],
)
def test_maxima_rise_above_the_valleys_beside_them(line, tops):
    assert maxima(np.array(line, float), prominence=2.0) == tops
