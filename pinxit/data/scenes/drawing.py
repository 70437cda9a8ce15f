"""Draws a `Scene` as an antialiased picture: paints at three times the size, then averages.

Positions, sizes and outlines vary with ``(seed, index)``; the facts of the scene do not.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from pinxit.config import UsageError
from pinxit.data.scenes.attributes import PLACES, Scene, Thing

RGB = tuple[int, int, int]
SUPERSAMPLING = 3
UNIT = 64
"""Scenes are composed on a grid of 64 x 64 units, whatever the size of the picture."""

SKY: dict[str, tuple[RGB, RGB]] = {
    "dawn": ((120, 150, 205), (250, 205, 205)),
    "day": ((70, 145, 225), (185, 222, 248)),
    "sunset": ((110, 60, 120), (253, 150, 60)),
    "night": ((8, 12, 40), (34, 44, 92)),
}
"""Colours of the sky at the zenith and at the horizon, by time of day."""
GROUND: dict[str, RGB] = {
    "mountains": (118, 150, 92),
    "hills": (112, 178, 84),
    "sea": (48, 118, 172),
    "forest": (84, 128, 66),
    "desert": (226, 190, 120),
}
BACKDROP: dict[str, RGB] = {
    "mountains": (118, 112, 132),
    "hills": (84, 146, 74),
    "sea": (48, 118, 172),
    "forest": (40, 86, 50),
    "desert": (206, 160, 92),
}
TINT: dict[str, tuple[float, float, float]] = {
    "dawn": (0.98, 0.90, 0.94),
    "day": (1.0, 1.0, 1.0),
    "sunset": (0.96, 0.78, 0.70),
    "night": (0.50, 0.54, 0.72),
}
"""Colour of the light on the land, by time of day."""
PAINT: dict[str, RGB] = {
    "red": (222, 46, 40),
    "yellow": (250, 214, 52),
    "green": (46, 178, 74),
    "blue": (44, 100, 232),
    "purple": (152, 66, 200),
    "white": (244, 244, 244),
}
X_OF = dict(zip(PLACES, (13.0, 32.0, 51.0), strict=True))


def render(scene: Scene, *, seed: int, index: int = 0, size: int = 64) -> np.ndarray:
    """Returns the picture of `scene`: uint8, (size, size, 3)."""
    if size < 16:
        raise UsageError(f"image size {size} is too small to draw a scene; at least 16")
    rng = np.random.default_rng([seed, index, 1])
    canvas = _Canvas(size)
    horizon = 39.0 + rng.uniform(-1.5, 1.5)
    free = [place for place in PLACES if place not in {thing.place for thing in scene.things}]
    celestial_x = X_OF[free[int(rng.integers(len(free)))]] + rng.uniform(-2, 2)
    _sky(canvas, scene, rng, celestial_x, horizon)
    _backdrop(canvas, scene, rng, horizon)
    _fog(canvas, scene, horizon, strength=0.85)
    for thing in scene.things:
        _thing(canvas, thing, scene.time, rng)
    _fog(canvas, scene, horizon + 8, strength=0.2)
    _falling(canvas, scene, rng)
    return canvas.finish()


class _Canvas:
    """A canvas whose unit is 1/64 of the picture's side."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = size * SUPERSAMPLING / UNIT
        side = size * SUPERSAMPLING
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)

    def _scaled(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def polygon(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        self.draw.polygon(self._scaled(points), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        self.draw.rectangle(self._scaled([(x0, y0), (x1, y1)]), fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        self.draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: RGB, width: float) -> None:
        self.draw.line(self._scaled(points), fill=fill, width=max(1, round(width * self.scale)))

    def blend(self, colour: RGB, strength: np.ndarray) -> None:
        """Mixes `colour` in, `strength` in [0, 1] per row."""
        rows = np.interp(
            np.linspace(0, len(strength) - 1, self.image.height), range(len(strength)), strength
        )
        mask = Image.fromarray((rows[:, None] * 255).astype(np.uint8)).resize(self.image.size)
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=mask)

    def finish(self) -> np.ndarray:
        return np.asarray(self.image.reduce(SUPERSAMPLING))


def _mix(a: RGB, b: RGB, amount: float) -> RGB:
    return tuple(round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _light(colour: RGB, time: str, *, strength: float = 1.0) -> RGB:
    tint = (1 + (c - 1) * strength for c in TINT[time])
    return tuple(round(x * c) for x, c in zip(colour, tint, strict=True))  # type: ignore[return-value]


def _sky(canvas: _Canvas, scene: Scene, rng: np.random.Generator, x: float, horizon: float) -> None:
    zenith, low = SKY[scene.time]
    if scene.weather in ("rain", "snow", "fog"):
        grey: RGB = (58, 62, 80) if scene.time == "night" else (160, 166, 176)
        zenith, low = _mix(zenith, grey, 0.6), _mix(low, grey, 0.45)
    ramp = np.linspace(0, 1, canvas.image.height) / (horizon / UNIT)
    ramp = np.clip(ramp, 0, 1)[:, None]
    rows = np.asarray(zenith) * (1 - ramp) + np.asarray(low) * ramp
    canvas.image.paste(Image.fromarray(rows.astype(np.uint8)[:, None, :]).resize(canvas.image.size))
    if scene.time == "night" and scene.weather in ("clear", "cloudy"):
        for _ in range(9):
            canvas.ellipse(rng.uniform(2, 62), rng.uniform(2, 26), 0.5, 0.5, (215, 220, 240))
    _celestial(canvas, scene, rng, x, horizon)
    if scene.weather in ("cloudy", "rain"):
        _clouds(canvas, scene, rng)


def _celestial(
    canvas: _Canvas, scene: Scene, rng: np.random.Generator, x: float, horizon: float
) -> None:
    y = rng.uniform(8, 11)
    if scene.celestial == "sun":
        low = scene.time in ("sunset", "dawn")
        y = horizon - rng.uniform(17, 20) if low else y
        colour: RGB = (255, 224, 96) if scene.time == "sunset" else (255, 246, 190)
        sky = SKY[scene.time][1 if low else 0]
        canvas.ellipse(x, y, 8, 8, _mix(sky, colour, 0.35))
        canvas.ellipse(x, y, 5.6, 5.6, colour)
    elif scene.celestial == "full moon":
        canvas.ellipse(x, y, 5.6, 5.6, (238, 238, 222))
        for dx, dy, r in ((-1.8, -1.2, 1.3), (1.8, 1.4, 1.0), (1.4, -2.4, 0.7)):
            canvas.ellipse(x + dx, y + dy, r, r, (206, 206, 196))
    elif scene.celestial == "crescent moon":
        canvas.ellipse(x, y, 5.6, 5.6, (246, 240, 200))
        canvas.ellipse(x + 3.2, y - 1.0, 5.0, 5.0, _mix(*SKY["night"], 0.25))


def _clouds(canvas: _Canvas, scene: Scene, rng: np.random.Generator) -> None:
    if scene.weather == "rain":
        colour: RGB = (46, 50, 64) if scene.time == "night" else (112, 116, 128)
        for x in np.arange(2, 66, 8.0):
            canvas.ellipse(x + rng.uniform(-2, 2), rng.uniform(2, 5), 8, 5.5, colour)
        return
    bright: dict[str, RGB] = {
        "dawn": (252, 232, 236),
        "day": (255, 255, 255),
        "sunset": (252, 196, 160),
        "night": (86, 94, 128),
    }
    for x in (rng.uniform(4, 14), rng.uniform(26, 38), rng.uniform(50, 60)):
        y = rng.uniform(15, 20) if scene.celestial != "none" else rng.uniform(7, 14)
        for dx, dy, rx, ry in ((-4, 1, 4, 2.4), (0, -0.8, 4.6, 3.4), (4.4, 0.8, 4, 2.6)):
            canvas.ellipse(x + dx, y + dy, rx, ry, bright[scene.time])


def _backdrop(canvas: _Canvas, scene: Scene, rng: np.random.Generator, horizon: float) -> None:
    far = _light(BACKDROP[scene.backdrop], scene.time)
    near = _light(GROUND[scene.backdrop], scene.time)
    snowy = scene.weather == "snow"
    white = _light((240, 244, 250), scene.time)
    if snowy and scene.backdrop != "sea":
        near, far = _mix(near, white, 0.85), _mix(far, white, 0.25)
    if scene.backdrop == "mountains":
        for x in (rng.uniform(2, 12), rng.uniform(26, 40), rng.uniform(52, 64)):
            top, half = horizon - rng.uniform(13, 18), rng.uniform(14, 18)
            canvas.polygon([(x - half, horizon), (x, top), (x + half, horizon)], far)
            cap = 0.34
            slope = half * cap
            peak = top + (horizon - top) * cap
            canvas.polygon([(x - slope, peak), (x, top), (x + slope, peak)], white)
    elif scene.backdrop == "hills":
        for x, shade in (
            (rng.uniform(4, 16), 0.0),
            (rng.uniform(44, 60), 0.0),
            (rng.uniform(24, 40), 0.18),
        ):
            canvas.ellipse(x, horizon + 6, 20, rng.uniform(12, 15), _mix(far, near, shade))
    elif scene.backdrop == "forest":
        for x in np.arange(-1, 67, 6.0):
            top, x = horizon - rng.uniform(8, 11), x + rng.uniform(-1, 1)
            canvas.polygon([(x - 4.5, horizon + 2), (x, top), (x + 4.5, horizon + 2)], far)
    elif scene.backdrop == "desert":
        for x in (rng.uniform(6, 18), rng.uniform(42, 58)):
            canvas.polygon(
                [(x - 22, horizon + 1), (x, horizon - rng.uniform(5, 8)), (x + 24, horizon + 1)],
                far,
            )
    canvas.box(0, horizon, 64, 64, near)
    if scene.backdrop == "sea":
        shore = 50 + rng.uniform(-1, 1)
        shine = _mix(near, SKY[scene.time][1], 0.55)
        for y in (horizon + 2.5, horizon + 7):
            x = rng.uniform(4, 20)
            for start in (x, x + 26):
                canvas.line([(start, y), (start + 14, y)], shine, 0.9)
        sand = _light((232, 206, 150), scene.time)
        canvas.box(0, shore, 64, 64, _mix(sand, white, 0.7) if snowy else sand)


def _thing(canvas: _Canvas, thing: Thing, time: str, rng: np.random.Generator) -> None:
    height = (18.0 if thing.size == "small" else 30.0) * rng.uniform(0.96, 1.04)
    x = X_OF[thing.place] + rng.uniform(-1.5, 1.5)
    base = (54.0 if thing.size == "small" else 60.0) + rng.uniform(-1, 1)
    if thing.kind == "balloon":
        base -= 18 if thing.size == "small" else 16
    body = _light(PAINT[thing.colour], time, strength=0.45)
    dark = _shade(body, 0.62)
    _DRAW[thing.kind](canvas, x, base, height, body, dark, time)


def _shade(colour: RGB, factor: float) -> RGB:
    hue, light, saturation = colorsys.rgb_to_hls(*(c / 255 for c in colour))
    rgb = colorsys.hls_to_rgb(hue, light * factor, saturation)
    return tuple(round(c * 255) for c in rgb)  # type: ignore[return-value]


def _window(time: str) -> RGB:
    return (255, 226, 120) if time == "night" else (70, 84, 110)


def _house(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    w = h * 0.46
    c.box(x - w, y - 0.58 * h, x + w, y, body)
    c.polygon([(x - 1.25 * w, y - 0.56 * h), (x, y - h), (x + 1.25 * w, y - 0.56 * h)], dark)
    c.box(x - 0.22 * w, y - 0.34 * h, x + 0.22 * w, y, dark)
    for side in (-0.62, 0.62):
        c.box(
            x + side * w - 0.17 * w,
            y - 0.44 * h,
            x + side * w + 0.17 * w,
            y - 0.27 * h,
            _window(time),
        )


def _tree(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    c.box(x - 0.07 * h, y - 0.42 * h, x + 0.07 * h, y, _light((112, 76, 46), time, strength=0.6))
    for dx, dy, r in ((-0.19, 0.54, 0.21), (0.19, 0.54, 0.21), (0.0, 0.74, 0.26)):
        c.ellipse(x + dx * h, y - dy * h, r * h + 0.5, r * h + 0.5, dark)
    for dx, dy, r in ((-0.19, 0.54, 0.21), (0.19, 0.54, 0.21), (0.0, 0.74, 0.26)):
        c.ellipse(x + dx * h, y - dy * h, r * h - 0.3, r * h - 0.3, body)


def _castle(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    w = h * 0.48
    c.box(x - w, y - 0.52 * h, x + w, y, body)
    for side in (-1, 1):
        tower = x + side * 0.76 * w
        c.box(tower - 0.3 * w, y - 0.78 * h, tower + 0.3 * w, y, body)
        c.polygon(
            [(tower - 0.38 * w, y - 0.76 * h), (tower, y - h), (tower + 0.38 * w, y - 0.76 * h)],
            dark,
        )
        c.box(tower - 0.1 * w, y - 0.62 * h, tower + 0.1 * w, y - 0.46 * h, _window(time))
    for dx in (-0.32, 0.0, 0.32):
        c.box(x + (dx - 0.1) * w, y - 0.62 * h, x + (dx + 0.1) * w, y - 0.5 * h, body)
    c.ellipse(x, y - 0.22 * h, 0.2 * w, 0.12 * h, dark)
    c.box(x - 0.2 * w, y - 0.22 * h, x + 0.2 * w, y, dark)


def _tent(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    w, top = h * 0.6, y - 0.82 * h
    c.polygon([(x - w, y), (x, top), (x + w, y)], body)
    c.polygon([(x - 0.3 * w, y), (x, top), (x + 0.3 * w, y)], dark)
    if time == "night":
        c.polygon([(x - 0.16 * w, y), (x, y - 0.5 * h), (x + 0.16 * w, y)], _window(time))


def _lighthouse(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    h = h * 1.12
    c.polygon(
        [
            (x - 0.19 * h, y),
            (x - 0.11 * h, y - 0.74 * h),
            (x + 0.11 * h, y - 0.74 * h),
            (x + 0.19 * h, y),
        ],
        body,
    )
    for low in (0.16, 0.46):
        a, b = 0.19 - 0.11 * low, 0.19 - 0.11 * (low + 0.14)
        c.polygon(
            [
                (x - a * h, y - low * h),
                (x - b * h, y - (low + 0.14) * h),
                (x + b * h, y - (low + 0.14) * h),
                (x + a * h, y - low * h),
            ],
            dark,
        )
    c.box(x - 0.15 * h, y - 0.78 * h, x + 0.15 * h, y - 0.73 * h, dark)
    c.box(x - 0.08 * h, y - 0.9 * h, x + 0.08 * h, y - 0.78 * h, (255, 232, 130))
    c.polygon([(x - 0.12 * h, y - 0.89 * h), (x, y - h), (x + 0.12 * h, y - 0.89 * h)], dark)


def _balloon(c: _Canvas, x: float, y: float, h: float, body: RGB, dark: RGB, time: str) -> None:
    r, top = 0.36 * h, y - 0.63 * h
    c.polygon(
        [
            (x - 0.9 * r, top + 0.4 * r),
            (x - 0.22 * r, y - 0.16 * h),
            (x + 0.22 * r, y - 0.16 * h),
            (x + 0.9 * r, top + 0.4 * r),
        ],
        body,
    )
    c.ellipse(x, top, r, r, body)
    c.ellipse(x, top, 0.36 * r, r, dark)
    c.polygon(
        [
            (x - 0.32 * r, top + 0.4 * r),
            (x - 0.1 * r, y - 0.16 * h),
            (x + 0.1 * r, y - 0.16 * h),
            (x + 0.32 * r, top + 0.4 * r),
        ],
        dark,
    )
    c.box(x - 0.09 * h, y - 0.12 * h, x + 0.09 * h, y, _light((120, 82, 50), time, strength=0.6))


_DRAW: dict[str, Callable[[_Canvas, float, float, float, RGB, RGB, str], None]] = {
    "house": _house,
    "tree": _tree,
    "castle": _castle,
    "tent": _tent,
    "lighthouse": _lighthouse,
    "balloon": _balloon,
}


def _fog(canvas: _Canvas, scene: Scene, centre: float, *, strength: float) -> None:
    if scene.weather == "fog":
        colour: RGB = (98, 104, 128) if scene.time == "night" else (224, 228, 232)
        rows = np.arange(UNIT)
        canvas.blend(colour, strength * np.exp(-(((rows - centre) / 10.0) ** 2)))


def _falling(canvas: _Canvas, scene: Scene, rng: np.random.Generator) -> None:
    night = scene.time == "night"
    if scene.weather == "rain":
        colour: RGB = (120, 136, 170) if night else (214, 226, 240)
        offset = rng.uniform(0, 8)
        for row, column in np.ndindex(4, 9):
            x = column * 8 + offset - 4 + 4 * (row % 2)
            y = 12 + row * 13 + 3 * (column % 2)
            canvas.line([(x + 1.6, y), (x, y + 5.5)], colour, 0.8)
    elif scene.weather == "snow":
        colour = (200, 206, 226) if night else (255, 255, 255)
        offset = rng.uniform(0, 9)
        for row, column in np.ndindex(6, 7):
            x = column * 10 + offset - 5 + 5 * (row % 2)
            canvas.ellipse(x, 4 + row * 10 + 3 * (column % 2), 1.1, 1.1, colour)
