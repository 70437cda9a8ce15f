"""Defines the facts that a short prompt names, and samples whole scenes that agree with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pinxit.data.scenes.attributes import (
    HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES,
    Scene,
    Thing,
    sample_scene,
)

ATTEMPTS = 4096
"""Number of scenes that are sampled at most; about every fortieth agrees with any facts."""


@dataclass(frozen=True)
class NamedThing:
    """An object of a prompt. Captions of scenes always name the colour."""

    kind: str
    colour: str
    place: str | None = None
    """One of left, middle and right, or None if the prompt leaves it free."""
    size: str | None = None
    """One of small and large, or None if the prompt leaves it free."""


@dataclass(frozen=True)
class NamedFacts:
    """The facts that a prompt names. The model may choose everything else."""

    things: tuple[NamedThing, ...]
    landscape: tuple[str, str] | None = None
    """A time and a backdrop, or None if the prompt leaves both free."""

    @property
    def held_out(self) -> bool:
        """Whether the named facts alone contain a combination that training never shows."""
        return any(
            (thing.colour, thing.kind) in HELD_OUT_PAIRS
            or (self.landscape is not None and (*self.landscape, thing.kind) in HELD_OUT_TRIPLES)
            for thing in self.things
        )

    def scene(self, *, seed: int, index: int) -> Scene:
        """Returns a scene with the named facts, as a pure function of the arguments.

        The free facts have the distribution that they have in all scenes with the named facts:
        scenes are sampled until one agrees. A scene shows no other objects than the named ones,
        because a caption names every object of its scene.
        """
        scenes = _scenes(seed, index)
        sky = _first(scenes, lambda one: self.landscape is None or one.time == self.landscape[0])
        # Kinds and colours are independent of all other facts, and so is the backdrop.
        things = tuple(
            Thing(thing.kind, thing.colour, size, place)
            for thing, (size, place) in zip(self.things, self._layout(scenes), strict=True)
        )
        backdrop = self.landscape[1] if self.landscape else sky.backdrop
        return replace(sky, backdrop=backdrop, things=things)

    def _layout(self, scenes: Iterator[Scene]) -> list[tuple[str, str]]:
        """Returns the size and the place of each object: the named ones, or sampled ones."""
        named = [(thing.size, thing.place) for thing in self.things if thing.size and thing.place]
        if len(named) == len(self.things):
            return named
        layout = _first(scenes, lambda one: self._places_in(one) is not None)
        sizes = {thing.place: thing.size for thing in layout.things}
        return [(sizes[place], place) for place in self._places_in(layout) or ()]

    def _places_in(self, scene: Scene) -> tuple[str, ...] | None:
        """Returns a place in the scene for each object, or None if the named facts do not fit."""
        sizes = {thing.place: thing.size for thing in scene.things}
        named = {thing.place for thing in self.things}
        free = [place for place in sizes if place not in named]
        if len(sizes) != len(self.things) or len(named - {None}) + len(free) != len(sizes):
            return None
        places = tuple(thing.place or free.pop() for thing in self.things)
        fits = all(
            thing.size in (None, sizes.get(place))
            for thing, place in zip(self.things, places, strict=True)
        )
        return places if fits else None


def _scenes(seed: int, index: int) -> Iterator[Scene]:
    """Yields scenes of the whole distribution, different ones for every index."""
    for attempt in range(ATTEMPTS):
        yield sample_scene(seed, index * ATTEMPTS + attempt, split="any")


def _first(scenes: Iterator[Scene], agrees: Callable[[Scene], bool]) -> Scene:
    for scene in scenes:
        if agrees(scene):
            return scene
    raise ValueError("no scene has the named facts: large objects are not next to each other")
