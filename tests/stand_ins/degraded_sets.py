"""Sets of pictures of scenes that lack something, in known ways, for figures that should see it.

``real``: renders. ``blurred``: a Gaussian blur of one pixel. ``repeated``: one picture for a group
of prompts. ``half_missing``: every second render lacks stars, caps, clouds, snow, rain and waves.
``half_modes``: of the renders of a prompt, those on one side alone. Drawn sets come from a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rendered_details as truth
from PIL import Image, ImageFilter

from pinxit.data.scenes.dataset import Scenes
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.details.renders import SEEDS_PER_PROMPT

GROUP = 8
"""Number of prompts that share a picture in the repeated set."""
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


def with_drawn(context: EvaluationContext, images: np.ndarray, name: str) -> EvaluationContext:
    """Returns the context with these pictures in place of those that its model would draw."""
    context = replace(context)
    vars(context)["drawn"] = Pictures(images, context.real.prompts, name)
    return context


def with_seeds(context: EvaluationContext, images: np.ndarray, name: str) -> EvaluationContext:
    """Returns the context with these pictures as those of each prompt's seeds."""
    context = replace(context)
    sets = context.seed_sets
    assert sets is not None
    vars(sets)["drawn"] = Pictures(images, sets.real.prompts, name)
    return context


def rendered(scenes: Scenes, seed: int = 4242) -> np.ndarray:
    """Returns a render of each scene whose seed no reference has."""
    return np.stack([render(scenes.scene(i), seed=seed, index=i) for i in range(len(scenes))])


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
    for i in range(0, len(scenes), 2):
        images[i] = truth.rendered_without(scenes.scene(i), FINE, seed=seed, index=i)
    return images


def half_modes(scenes: Scenes, numbers: Sequence[int], seed: int = 4242) -> np.ndarray:
    """Returns renders of each scene whose random positions are all of one half.

    Of twice as many renders, those are taken that are closest to the first one in their pixels.
    """
    sets = []
    for number in numbers:
        scene = scenes.scene(number)
        seeds = range(seed, seed + 2 * SEEDS_PER_PROMPT)
        images = np.stack([render(scene, seed=one, index=number) for one in seeds])
        distance = np.abs(images.astype(int) - images[0]).mean(axis=(1, 2, 3))
        sets.append(images[np.argsort(distance, kind="stable")[:SEEDS_PER_PROMPT]])
    return np.concatenate(sets)
