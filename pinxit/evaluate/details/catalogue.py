"""The details that are compared, and the scenes whose pictures show each.

A detail is listed for the scenes where its reader agrees with renders; ``tests/evaluate/details``
measures the error of each. Dunes, and stars between clouds, are not listed: their readers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.attributes import Scene
from pinxit.evaluate.details.counts import MAP, THING_COLOURS, SceneDetails

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


def shows_stars(scene: Scene) -> bool:
    """Returns whether stars can be read: clouds would hide some and look like others."""
    return scene.time == "night" and scene.weather == "clear"


def shows_peaks(scene: Scene) -> bool:
    """Returns whether the peaks can be read: nothing white is around them, no balloon hides one."""
    hidden = any(thing.kind == "balloon" for thing in scene.things)
    return scene.backdrop == "mountains" and scene.weather in ("clear", "rain") and not hidden


def _waves(scene: Scene) -> bool:
    return (
        scene.backdrop == "sea" and scene.time != "night" and scene.weather in ("clear", "cloudy")
    )


def _trees(scene: Scene) -> bool:
    return scene.backdrop == "forest" and scene.weather in ("clear", "cloudy", "rain")


def _cloudy(scene: Scene) -> bool:
    return scene.weather == "cloudy"


def shows_disc(scene: Scene) -> bool:
    """Returns whether the sun or the moon is in the sky."""
    return scene.celestial != "none"


COUNTS: Sequence[Detail] = (
    Detail("stars", "stars", shows_stars, 0.5),
    Detail("mountain_peaks", "peaks", shows_peaks, 0.5),
    Detail("tree_tops", "trees", _trees, 0.5),
    Detail("clouds", "clouds", _cloudy, 0.5),
    Detail("cloud_cover", "cloud_cover", _cloudy),
    Detail("snowflakes", "flakes", lambda scene: scene.weather == "snow", 0.5),
    Detail(
        "rain_streaks", "streaks", lambda scene: scene.weather == "rain" and scene.time != "night"
    ),
    Detail("waves", "waves", _waves, 0.5),
    Detail("suns_and_moons", "discs", shows_disc, 0.5),
    Detail("gradient", "gradient"),
    Detail("laplacian", "laplacian"),
    Detail("fine_texture", "fine"),
    Detail("colours", "colours"),
)
"""Counts and measures of a picture."""

PEAKS = ("peak_left", "peak_middle", "peak_right")
"""The readings of the peaks' columns."""


def thing_reading(scene: Scene) -> str | None:
    """Returns the reading of the column of a scene's first readable thing, or None."""
    for thing in scene.things:
        alone = sum(other.colour == thing.colour for other in scene.things) == 1
        dark = thing.colour == "purple" and scene.time == "night"
        if alone and thing.colour in THING_COLOURS and not dark:
            return f"{thing.colour}_x"
    return None


def positions_of(scene: Scene) -> dict[str, tuple[str, ...]]:
    """Returns the readings of the columns that a scene leaves open, by the name of a detail."""
    thing = thing_reading(scene)
    return {
        **({"sun_or_moon": ("disc_x",)} if shows_disc(scene) else {}),
        **({"peak_positions": PEAKS} if shows_peaks(scene) else {}),
        **({"thing_position": (thing,)} if thing is not None else {}),
    }


def star_maps(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
    """Returns the map of stars of each row: a count for each cell of eight pixels."""
    start = COLUMN["stars_0_0"]
    return rows[:, start : start + MAP[0] * MAP[1]]
