"""The details that are compared, and the scenes whose pictures show each.

A detail is listed for the scenes where its reader agrees with renders: ``tests/evaluate/details``
measures every reader's error. Dunes, and stars between clouds, are not listed: their readers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.attributes import Scene
from pinxit.evaluate.details.counts import ABSENT, MAP, SceneDetails

COLUMN = {name: number for number, name in enumerate(SceneDetails.names)}
"""The column of each reading."""


@dataclass(frozen=True)
class Detail:
    """A detail, its reading, and the scenes that show it."""

    name: str
    """The name in tables."""
    reading: str
    """The name of its reading."""
    shown: Callable[[Scene], bool] = lambda scene: True
    """Whether a scene shows the detail, so that its reading means something."""
    least: float = 0.0
    """The least standard deviation that distances are divided by: half a count for counts."""

    def of(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Returns the detail's column of rows of readings."""
        return rows[:, COLUMN[self.reading]]


def _clear_night(scene: Scene) -> bool:
    return scene.time == "night" and scene.weather == "clear"


def _peaks(scene: Scene) -> bool:
    return scene.backdrop == "mountains" and scene.weather in ("clear", "rain")


def _waves(scene: Scene) -> bool:
    return (
        scene.backdrop == "sea" and scene.time != "night" and scene.weather in ("clear", "cloudy")
    )


def _trees(scene: Scene) -> bool:
    return scene.backdrop == "forest" and scene.weather in ("clear", "cloudy", "rain")


def _cloudy(scene: Scene) -> bool:
    return scene.weather == "cloudy"


def _disc(scene: Scene) -> bool:
    return scene.celestial != "none"


COUNTS: Sequence[Detail] = (
    Detail("stars", "stars", _clear_night, 0.5),
    Detail("mountain_peaks", "peaks", _peaks, 0.5),
    Detail("tree_tops", "trees", _trees, 0.5),
    Detail("clouds", "clouds", _cloudy, 0.5),
    Detail("cloud_cover", "cloud_cover", _cloudy),
    Detail("snowflakes", "flakes", lambda scene: scene.weather == "snow", 0.5),
    Detail(
        "rain_streaks", "streaks", lambda scene: scene.weather == "rain" and scene.time != "night"
    ),
    Detail("waves", "waves", _waves, 0.5),
    Detail("suns_and_moons", "discs", _disc, 0.5),
    Detail("gradient", "gradient"),
    Detail("laplacian", "laplacian"),
    Detail("fine_texture", "fine"),
    Detail("colours", "colours"),
)
"""Counts and measures of a picture."""

POSITIONS: Sequence[Detail] = (
    Detail("left_peak", "peak_left", _peaks),
    Detail("middle_peak", "peak_middle", _peaks),
    Detail("right_peak", "peak_right", _peaks),
    Detail("sun_or_moon", "disc_x", _disc),
)
"""Columns of the picture, from 0 to 64, or `ABSENT`."""

THING_COLOURS = {"red": True, "yellow": True, "purple": False}
"""Colours of things that are read reliably, and whether they are at night too."""


def thing_position(scene: Scene) -> Detail | None:
    """Returns the position of the first thing of a scene that can be read, or None."""
    for thing in scene.things:
        alone = sum(other.colour == thing.colour for other in scene.things) == 1
        at_night = THING_COLOURS.get(thing.colour)
        if alone and at_night is not None and (at_night or scene.time != "night"):
            return Detail("thing", f"{thing.colour}_x")
    return None


def star_maps(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
    """Returns the map of stars of each row: a count for each cell of eight pixels."""
    start = COLUMN["stars_0_0"]
    return rows[:, start : start + MAP[0] * MAP[1]]


def shows_stars(scene: Scene) -> bool:
    """Returns whether stars can be read in pictures of a scene."""
    return _clear_night(scene)


def present(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Returns the positions of the pictures that show something at all."""
    return values[values != ABSENT]
