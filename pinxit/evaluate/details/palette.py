"""Colours of scenes, by the time of day that a picture's sky shows.

A picture's time is read from its sky: the ramp of colours, of the eight that `drawing` paints,
that is closest to the rows between the clouds and the mountains. The other colours follow from it.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.attributes import TIMES
from pinxit.data.scenes.drawing import BACKDROP, GROUND, PAINT, SKY, TINT

SIDE = 64
"""The side that pictures are resized to, in pixels; a unit of the drawing is one pixel."""
HORIZON = 39.0
"""The mean row of the horizon in renders, which varies by 1.5 rows."""
SKY_ROWS = slice(11, 22)
"""Rows that show sky: below the clouds of rain, above most mountains."""

Colour = Float[np.ndarray, " 3"]
Pixels = Float[np.ndarray, "64 64 3"]
"""A picture, from 0 to 255."""

CLOUD = {
    "dawn": (252, 232, 236),
    "day": (255, 255, 255),
    "sunset": (252, 196, 160),
    "night": (86, 94, 128),
}
"""Colours of clouds by time."""
DISC = {
    "dawn": ((255, 246, 190),),
    "day": ((255, 246, 190),),
    "sunset": ((255, 224, 96),),
    "night": ((238, 238, 222), (246, 240, 200)),
}
"""Colours of the sun and of both moons by time."""
SNOW = (240, 244, 250)
"""The colour of snow on the land and of the mountains' caps, by day."""
DARKER = 0.62
"""The lightness of a thing's darker parts, as a share of its body's."""
THING_LIGHT = 0.45
"""The strength of the time's tint on things."""


@dataclass(frozen=True)
class Palette:
    """The colours that a picture should consist of."""

    time: str
    """The time of day."""
    sky: Float[np.ndarray, "64 3"]
    """The colour of the sky in each row."""

    def lit(self, colour: tuple[int, ...], *, strength: float = 1.0) -> Colour:
        """Returns a colour under the time's light."""
        tint = 1 + (np.asarray(TINT[self.time]) - 1) * strength
        return np.asarray(colour) * tint

    def land(self, backdrop: str) -> list[Colour]:
        """Returns the colours of a backdrop's far part, without and with snow."""
        far = self.lit(BACKDROP[backdrop])
        return [far, _mixed(far, self.caps, 0.25)]

    @property
    def caps(self) -> Colour:
        """The colour of the mountains' caps."""
        return self.lit(SNOW)

    @property
    def clouds(self) -> Colour:
        """The colour of clouds without rain."""
        return np.asarray(CLOUD[self.time], float)

    @property
    def discs(self) -> list[Colour]:
        """The colours of the sun, or of the moons."""
        return [np.asarray(colour, float) for colour in DISC[self.time]]

    @property
    def waves(self) -> tuple[Colour, Colour]:
        """The colours of the sea and of the light on its waves."""
        sea = self.lit(GROUND["sea"])
        return sea, _mixed(sea, np.asarray(SKY[self.time][1]), 0.55)

    def thing(self, colour: str) -> list[Colour]:
        """Returns the colours of a thing's body and of its darker parts."""
        body = self.lit(PAINT[colour], strength=THING_LIGHT)
        hue, light, saturation = colorsys.rgb_to_hls(*(body / 255))
        dark = colorsys.hls_to_rgb(hue, light * DARKER, saturation)
        return [body, np.asarray(dark) * 255]


def _mixed(a: np.ndarray, b: np.ndarray, amount: float | np.ndarray) -> np.ndarray:
    return a + (b - a) * amount


def _ramp(time: str, *, grey: bool) -> Float[np.ndarray, "64 3"]:
    top, low = (np.asarray(colour, float) for colour in SKY[time])
    if grey:
        veil = np.asarray((58, 62, 80) if time == "night" else (160, 166, 176))
        top, low = _mixed(top, veil, 0.6), _mixed(low, veil, 0.45)
    share = np.clip((np.arange(SIDE) + 0.5) / HORIZON, 0, 1)[:, None]
    return _mixed(top, low, share)


PALETTES = [Palette(time, _ramp(time, grey=grey)) for time in TIMES for grey in (False, True)]
"""The palette of each time, in clear or cloudy and in bad weather."""


def palette_of(picture: Pixels) -> Palette:
    """Returns the palette whose sky is closest to the picture's, in the median of its pixels."""
    rows = picture[SKY_ROWS]
    distances = [
        np.median(np.abs(rows - palette.sky[SKY_ROWS, None]).sum(-1)) for palette in PALETTES
    ]
    return PALETTES[int(np.argmin(distances))]
