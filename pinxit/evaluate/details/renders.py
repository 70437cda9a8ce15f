"""Renders of chosen scenes with other drawing seeds: what a perfect model would draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from pinxit.arrays import Example
from pinxit.data.scenes.attributes import Scene
from pinxit.data.scenes.dataset import Scenes
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.details.catalogue import shows_disc, shows_peaks, shows_stars, thing_reading
from pinxit.evaluate.picture_sets import DrawnPictures, RealPictures

SEEDS_PER_PROMPT = 8
"""Number of pictures of each prompt of `SeedSets`."""
CANDIDATES = 2000
"""Number of held-out scenes that the prompts are chosen from."""


@dataclass(frozen=True)
class Renders:
    """Examples with the facts and captions of scenes, drawn with chosen seeds."""

    scenes: Scenes
    numbers: Sequence[int]
    """The number of the scene of each example."""
    seeds: Sequence[int]
    """The drawing seed of each example, which decides positions and outlines, but no facts."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Example:
        number = self.numbers[index]
        scene = self.scenes.scene(number)
        size = self.scenes.image_size
        image = render(scene, seed=self.seeds[index], index=number, size=size)
        return Example(image, self.scenes.caption(number), attributes=scene.labels())


def other_renders_of(scenes: Scenes) -> RealPictures:
    """Returns a render of each scene whose drawing seed differs from that of `scenes`."""
    renders = Renders(scenes, range(len(scenes)), [scenes.seed + 1] * len(scenes))
    return RealPictures(renders, title="reading other renders of the same scenes")


@dataclass(frozen=True, eq=False)
class SeedSets:
    """The drawn and the rendered pictures of some prompts, `SEEDS_PER_PROMPT` of each."""

    like: DrawnPictures
    """A set with the model and the settings to draw with."""
    scenes: Scenes
    prompts: int
    """The number of prompts."""

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers of the scenes, which show details in turn: stars, peaks, sun, a thing."""
        wishes: list[Callable[[Scene], bool]] = [
            shows_stars,
            shows_peaks,
            shows_disc,
            lambda scene: thing_reading(scene) is not None,
        ]
        scene = cache(self.scenes.scene)
        numbers: list[int] = []
        for turn in range(self.prompts):
            shown = wishes[turn % len(wishes)]
            others = (i for i in range(len(self.scenes)) if i not in numbers)
            numbers.append(next(i for i in others if shown(scene(i))))
        return sorted(numbers)

    @cached_property
    def drawn(self) -> DrawnPictures:
        """The pictures of each prompt, drawn from the seeds 0, 1, 2, ..."""
        prompts = [self.scenes.caption(i) for i in self.numbers for _ in range(SEEDS_PER_PROMPT)]
        return replace(
            self.like,
            prompts=tuple(prompts),
            seeds=tuple(range(SEEDS_PER_PROMPT)) * len(self.numbers),
            title="drawing each prompt from several seeds",
        )

    @cached_property
    def real(self) -> RealPictures:
        """The renders of the prompts' scenes with other drawing seeds."""
        numbers = [i for i in self.numbers for _ in range(SEEDS_PER_PROMPT)]
        first = self.scenes.seed + 1
        seeds = list(range(first, first + SEEDS_PER_PROMPT)) * len(self.numbers)
        renders = Renders(self.scenes, numbers, seeds)
        return RealPictures(renders, title="reading renders of the same scenes")
