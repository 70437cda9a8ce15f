"""The details that a render shows, known from the calls of the drawing code.

A canvas leaves out the calls that draw a detail. The detail is visible where the picture without
it differs. So this truth shares no colours and no thresholds with the readers in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pinxit.data.scenes import drawing
from pinxit.data.scenes.attributes import Scene
from pinxit.data.scenes.drawing import X_OF, render
from pinxit.evaluate.details.regions import regions

Drops = Callable[[str, tuple[Any, ...]], bool]


@contextmanager
def _canvas(drop: Drops, log: list[tuple[str, tuple[Any, ...]]]) -> Iterator[None]:
    original = drawing._Canvas

    class Without(original):
        """A canvas that notes all calls and leaves out some."""

    def without(name: str) -> Callable[..., None]:
        call = getattr(original, name)

        def noted(self: Any, *args: Any) -> None:
            log.append((name, args))
            if not drop(name, args):
                call(self, *args)

        return noted

    for name in ("polygon", "box", "ellipse", "line"):
        setattr(Without, name, without(name))
    drawing._Canvas = Without
    try:
        yield
    finally:
        drawing._Canvas = original


def calls(scene: Scene, **where: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Returns the calls that draw a scene."""
    log: list[tuple[str, tuple[Any, ...]]] = []
    with _canvas(lambda name, args: False, log):
        render(scene, **where)
    return log


def visible(scene: Scene, drop: Drops, **where: int) -> np.ndarray:
    """Returns the largest change of a channel in each pixel if some calls are left out."""
    with _canvas(drop, []):
        without = render(scene, **where)
    return np.abs(render(scene, **where).astype(int) - without).max(-1)


def is_star(name: str, args: tuple[Any, ...]) -> bool:
    return name == "ellipse" and args[-1] == (215, 220, 240) and args[2] == 0.5


def is_cloud(name: str, args: tuple[Any, ...]) -> bool:
    return name == "ellipse" and args[2:4] in ((4, 2.4), (4.6, 3.4), (4, 2.6))


def is_disc(name: str, args: tuple[Any, ...]) -> bool:
    return name == "ellipse" and args[2] == 5.6


def is_wave(name: str, args: tuple[Any, ...]) -> bool:
    return name == "line" and args[-1] == 0.9


def is_flake(name: str, args: tuple[Any, ...]) -> bool:
    return name == "ellipse" and args[2:4] == (1.1, 1.1)


def is_streak(name: str, args: tuple[Any, ...]) -> bool:
    return name == "line" and args[-1] == 0.8


def tips(scene: Scene, **where: int) -> list[tuple[float, float]]:
    """Returns the tips of triangles of the backdrop that nothing covers, from left to right."""
    log = calls(scene, **where)
    land = next(i for i, (name, args) in enumerate(log) if name == "box" and args[0] == 0)
    triangles = [args for name, args in log[:land] if name == "polygon" and len(args[0]) == 3]
    points = {args[0][1] for args in triangles}
    shown = []
    for x, y in sorted(points):
        change = visible(scene, lambda name, args, at=(x, y): _has(name, args, at), **where)
        column, row = int(x), int(y) + 1
        if 0 <= x < 64 and change[row : row + 2, column].max() > 8:
            shown.append((x, y))
    return shown


def _has(name: str, args: tuple[Any, ...], tip: tuple[float, float]) -> bool:
    return name == "polygon" and len(args[0]) == 3 and args[0][1] == tip


def is_cap(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a call draws the cap of a mountain: a triangle that is small and whitish."""
    if name != "polygon" or len(args[0]) != 3:
        return False
    (_, low), (_, top), _ = args[0]
    return 4 < low - top < 6.5 and any(
        args[-1] == drawing._light((240, 244, 250), time) for time in drawing.TINT
    )


def rendered_without(scene: Scene, drops: Sequence[Drops], **where: int) -> np.ndarray:
    """Returns the render of a scene without the calls that draw these details."""
    with _canvas(lambda name, args: any(drop(name, args) for drop in drops), []):
        return render(scene, **where)


def _seen(drop: Drops, rows: slice, *, change: int = 20, **least: int) -> Callable[..., float]:
    """Returns a function that counts visible regions of a detail of some least sizes."""

    def count(scene: Scene, **where: int) -> float:
        parts = regions(visible(scene, drop, **where)[rows] > change)
        return sum(
            all(getattr(part, name) >= size for name, size in least.items()) for part in parts
        )

    return count


def _inner_tips(scene: Scene, **where: int) -> float:
    return sum(3 < x < 62 for x, _ in tips(scene, **where))


def _cloud_cover(scene: Scene, **where: int) -> float:
    return float((visible(scene, is_cloud, **where)[:24] > 20).mean())


def _disc_x(scene: Scene, **where: int) -> float:
    return next(args[0] for name, args in calls(scene, **where) if is_disc(name, args))


COUNTED: dict[str, Callable[..., float]] = {
    "stars": _seen(is_star, slice(28)),
    "mountain_peaks": lambda scene, **where: len(tips(scene, **where)),
    "tree_tops": _inner_tips,
    "clouds": _seen(is_cloud, slice(24), area=8),
    "cloud_cover": _cloud_cover,
    "snowflakes": _seen(is_flake, slice(28)),
    "rain_streaks": _seen(is_streak, slice(64), change=12, height=4),
    "waves": _seen(is_wave, slice(40, 50), width=4),
    "suns_and_moons": lambda scene, **where: 1,
}
"""The true reading of each detail that is counted."""


def true_positions(scene: Scene, readings: Sequence[str], **where: int) -> list[float]:
    """Returns the true column of the sun or moon, of the peaks, or of the middle of a thing's
    place, or -1."""
    if readings == ("disc_x",):
        return [_disc_x(scene, **where)]
    if len(readings) == 3:
        shown = [x for x, _ in tips(scene, **where)]
        slots = (0, 19), (19, 46), (46, 64)
        return [next((x for x in shown if low <= x < high), -1.0) for low, high in slots]
    colour = readings[0].removesuffix("_x")
    return [next(X_OF[thing.place] for thing in scene.things if thing.colour == colour)]
