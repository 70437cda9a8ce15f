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


@dataclass(frozen=True)
class NamedThing:
    """An object of a prompt. Captions of scenes always name the colour."""

    kind: str
    colour: str
    place: str | None = None
    """One of left, middle and right, or None if the prompt leaves it free."""


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
        layout = _first(scenes, self._has_places_for)
        # Kinds and colours are independent of all other facts, and so is the backdrop.
        sizes = {thing.place: thing.size for thing in layout.things}
        named = {thing.place for thing in self.things}
        free = iter(place for place in sizes if place not in named)
        things = tuple(
            Thing(thing.kind, thing.colour, sizes[place], place)
            for thing in self.things
            for place in (thing.place or next(free),)
        )
        backdrop = self.landscape[1] if self.landscape else sky.backdrop
        return replace(sky, backdrop=backdrop, things=things)

    def _has_places_for(self, scene: Scene) -> bool:
        """Returns whether the scene has as many objects, at the named places."""
        named = {thing.place for thing in self.things if thing.place}
        places = {thing.place for thing in scene.things}
        return len(places) == len(self.things) and named <= places


def _scenes(seed: int, index: int) -> Iterator[Scene]:
    """Yields scenes of the whole distribution, different ones for every index."""
    for attempt in range(2**20):
        yield sample_scene(seed, index * 2**20 + attempt, split="any")


def _first(scenes: Iterator[Scene], agrees: Callable[[Scene], bool]) -> Scene:
    return next(scene for scene in scenes if agrees(scene))
