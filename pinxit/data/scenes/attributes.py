"""Defines a scene by its attributes, and the combinations that are held out of training.

A scene is a landscape with a time of day, a backdrop, a weather, perhaps a sun or a moon, and up
to two coloured objects, each of a size and in one of three places. Every scene is a pure function
of ``(seed, index, split)``.

*Combinations* are held out, never single values: some colour-object pairs and some triples of time,
backdrop and object. A model that scores well on them has learned to compose, not to remember.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")

TIMES = ("dawn", "day", "sunset", "night")
BACKDROPS = ("mountains", "hills", "sea", "forest", "desert")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog")
CELESTIALS = ("none", "sun", "full moon", "crescent moon")
KINDS = ("house", "tree", "castle", "tent", "lighthouse", "balloon")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SIZES = ("small", "large")
PLACES = ("left", "middle", "right")

SPLITS = ("train", "heldout", "any")

HELD_OUT_PAIRS = frozenset(
    {
        ("purple", "castle"),
        ("red", "tree"),
        ("blue", "lighthouse"),
        ("yellow", "tent"),
        ("green", "balloon"),
        ("white", "house"),
    }
)
"""Colour-object pairs that training never shows."""

HELD_OUT_TRIPLES = frozenset(
    (TIMES[i % 4], BACKDROPS[(2 * i + 1) % 5], KINDS[(i + i // 6) % 6]) for i in range(12)
)
"""Triples of time, backdrop and object that training never shows."""


@dataclass(frozen=True)
class Thing:
    """A coloured object that stands (a balloon: hangs) somewhere in the scene."""

    kind: str
    colour: str
    size: str
    place: str


@dataclass(frozen=True)
class Scene:
    """The facts about one landscape, apart from the random variation of the drawing."""

    time: str
    backdrop: str
    weather: str
    celestial: str
    things: tuple[Thing, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the scene contains a combination that training never shows."""
        return any(
            (thing.colour, thing.kind) in HELD_OUT_PAIRS
            or (self.time, self.backdrop, thing.kind) in HELD_OUT_TRIPLES
            for thing in self.things
        )

    def labels(self) -> dict[str, str]:
        """Returns one value per head of the attribute judge (`HEADS`).

        Colour and size are given only for places with a thing.
        """
        labels = {
            "time": self.time,
            "backdrop": self.backdrop,
            "weather": self.weather,
            "celestial": self.celestial,
        }
        labels |= {f"{place}.object": "none" for place in PLACES}
        for thing in self.things:
            labels[f"{thing.place}.object"] = thing.kind
            labels[f"{thing.place}.colour"] = thing.colour
            labels[f"{thing.place}.size"] = thing.size
        return labels


_OF_A_PLACE: dict[str, tuple[str, ...]] = {
    "object": ("none", *KINDS),
    "colour": COLOURS,
    "size": SIZES,
}

HEADS: dict[str, tuple[str, ...]] = {
    "time": TIMES,
    "backdrop": BACKDROPS,
    "weather": WEATHERS,
    "celestial": CELESTIALS,
    **{f"{place}.{name}": values for place in PLACES for name, values in _OF_A_PLACE.items()},
}
"""The heads of the attribute judge, each with its possible values."""

ATTRIBUTES = ("time", "backdrop", "weather", "celestial", "object", "colour", "size", "place")
"""Attributes whose accuracy is reported, in this order."""


def score(scene: Scene, predicted: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yields (attribute, whether it is right) for a picture that should show `scene`.

    `predicted` holds the judge's answer for every head. An object, its colour and its size must
    be right *at the place the prompt names*; ``place`` is right when exactly the named places are
    occupied.
    """
    for name in ("time", "backdrop", "weather", "celestial"):
        yield name, predicted[name] == getattr(scene, name)
    for thing in scene.things:
        yield "object", predicted[f"{thing.place}.object"] == thing.kind
        yield "colour", predicted[f"{thing.place}.colour"] == thing.colour
        yield "size", predicted[f"{thing.place}.size"] == thing.size
    occupied = {place for place in PLACES if predicted[f"{place}.object"] != "none"}
    yield "place", occupied == {thing.place for thing in scene.things}


def sample_scene(seed: int, index: int, *, split: str = "train") -> Scene:
    """Returns the scene at `index`, the first sample in `split` ("any" takes every sample)."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, index, 0])
    while True:
        scene = _draw(rng)
        if split == "any" or scene.held_out == (split == "heldout"):
            return scene


def _draw(rng: np.random.Generator) -> Scene:
    time = _pick(rng, TIMES)
    backdrop = _pick(rng, BACKDROPS)
    weather = _pick(rng, WEATHERS, weights=(0.4, 0.2, 0.14, 0.14, 0.12))
    return Scene(time, backdrop, weather, _draw_celestial(rng, time, weather), _draw_things(rng))


def _draw_celestial(rng: np.random.Generator, time: str, weather: str) -> str:
    if weather in ("rain", "fog"):
        return "none"
    if time == "night":
        return _pick(rng, ("none", "full moon", "crescent moon"), weights=(0.2, 0.4, 0.4))
    return _pick(rng, ("none", "sun"), weights=(0.35, 0.65))


def _draw_things(rng: np.random.Generator) -> tuple[Thing, ...]:
    count = _pick(rng, (0, 1, 2), weights=(0.06, 0.64, 0.30))
    places = [PLACES[i] for i in rng.permutation(3)[:count]]
    kinds = [KINDS[i] for i in rng.permutation(6)[:count]]
    # Two neighbours are both small, so that neither covers the other.
    crowded = count == 2 and "middle" in places
    return tuple(
        Thing(kind, _pick(rng, COLOURS), "small" if crowded else _pick(rng, SIZES), place)
        for kind, place in zip(kinds, places, strict=True)
    )


def _pick(
    rng: np.random.Generator, values: tuple[T, ...], *, weights: tuple[float, ...] | None = None
) -> T:
    """Returns what ``rng.choice`` does from the same state, in a tenth of its time."""
    if weights is None:
        return values[int(rng.integers(len(values)))]
    return values[bisect_right(_cumulated(weights), rng.random())]


@cache
def _cumulated(weights: tuple[float, ...]) -> list[float]:
    sums = np.cumsum(weights)
    return (sums / sums[-1]).tolist()
