"""Sets of pictures of scenes that lack something, in known ways, for figures that should see it.

``real``: renders. ``blurred``: a Gaussian blur of one pixel. ``repeated``: one picture for a group
of prompts. ``half_missing``: every second render lacks stars, caps, clouds, snow, rain and waves.
``few_modes``: of the renders of a prompt, the quarter with the sun furthest to the left. Drawn sets
come from a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import rendered_details as truth
from PIL import Image, ImageFilter

from pinxit.data.scenes.attributes import Scene
from pinxit.data.scenes.dataset import Scenes
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.details.catalogue import positions_of
from pinxit.evaluate.details.counts import readings
from pinxit.evaluate.details.renders import SEEDS_PER_PROMPT, SeedSets

GROUP = 8
"""Number of prompts that share a picture in the repeated set."""
MADE = ("real", "other_renders")
"""Sets of a context that do not depend on what is drawn."""
FINE = (
    truth.is_star,
    truth.is_cloud,
    truth.is_wave,
    truth.is_flake,
    truth.is_streak,
    truth.is_cap,
)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in memory as a `PictureSet`."""

    images: np.ndarray
    prompts: Sequence[str]
    name: str
    title: str = "pictures in memory"
    lasting: bool = False
    together: int = 64

    def __len__(self) -> int:
        return len(self.images)

    def about(self) -> Mapping[str, Any]:
        return {"stand_in": self.name, "sum": int(self.images.sum(dtype=np.int64))}

    def pictures(self, numbers: range) -> Sequence[np.ndarray]:
        return list(self.images[numbers.start : numbers.stop])


def in_memory(context: EvaluationContext) -> EvaluationContext:
    """Returns the context with its renders in memory, so that they are made once."""
    context = replace(context)
    scenes, sides = context.prompted, context.seed_sets
    prompts = [scenes.caption(i) for i in range(len(scenes))]
    vars(context)["real"] = Pictures(rendered(scenes, scenes.seed), prompts, "real")
    vars(context)["other_renders"] = Pictures(rendered(scenes, 1), prompts, "other")
    if sides is not None:
        real = np.stack(sides.real.pictures(range(len(sides.real))))
        vars(sides)["real"] = Pictures(real, sides.drawn.prompts, "sides")
    return context


def with_drawn(context: EvaluationContext, images: np.ndarray, name: str) -> EvaluationContext:
    """Returns the context with these pictures in place of those that its model would draw."""
    return _with(context, drawn=Pictures(images, context.real.prompts, name))


def _with(context: EvaluationContext, **sets: Any) -> EvaluationContext:
    """Returns the context with some sets of pictures exchanged, and the others kept."""
    other = replace(context)
    kept = {
        name: vars(context)[name] for name in ("real", "other_renders") if name in vars(context)
    }
    vars(other).update(kept | sets)
    return other


def with_seeds(context: EvaluationContext, images: np.ndarray, name: str) -> EvaluationContext:
    """Returns the context with these pictures as those of each prompt's seeds."""
    sides = context.seed_sets
    assert sides is not None
    other = replace(sides)
    vars(other).update(vars(sides) | {"drawn": Pictures(images, sides.real.prompts, name)})
    return _with(context, seed_sets=other)


@cache
def facts(scenes: Scenes) -> list[Scene]:
    """Returns the scenes of a dataset."""
    return [scenes.scene(i) for i in range(len(scenes))]


def rendered(scenes: Scenes, seed: int = 4242) -> np.ndarray:
    """Returns a render of each scene whose seed no reference has."""
    return np.stack([render(scene, seed=seed, index=i) for i, scene in enumerate(facts(scenes))])


def blurred(images: np.ndarray, radius: float = 1.0) -> np.ndarray:
    """Returns the pictures after a Gaussian blur."""
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])


def repeated(images: np.ndarray, group: int = GROUP) -> np.ndarray:
    """Returns the first picture of each group in place of all pictures of the group."""
    return images[np.arange(len(images)) // group * group]


def half_missing(scenes: Scenes, seed: int = 4242) -> np.ndarray:
    """Returns renders, every second of which lacks its small details."""
    images = rendered(scenes, seed)
    for i, scene in list(enumerate(facts(scenes)))[::2]:
        images[i] = truth.rendered_without(scene, FINE, seed=seed, index=i)
    return images


def few_modes(sides: SeedSets, seed: int = 4242) -> np.ndarray:
    """Returns renders of each prompt, with its sun, moon, middle peak or thing far to the left.

    Those are the first quarter of four times as many renders, ordered by that detail's column.
    """
    images = []
    for number in sides.numbers:
        scene = sides.scenes.scene(number)
        seeds = range(seed, seed + 4 * SEEDS_PER_PROMPT)
        renders = [render(scene, seed=one, index=number) for one in seeds]
        columns = next(iter(positions_of(scene).values()), ())
        middle = columns[len(columns) // 2] if columns else "stars"
        renders.sort(key=lambda image, name=middle: readings(image)[name])
        images += renders[:SEEDS_PER_PROMPT]
    return np.stack(images)
