"""The pictures of composition: four drawn ones and four real ones of every prompt."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pinxit.arrays import Example
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.composition.prompts import SEED, Prompt, Wording, task_prompts
from pinxit.evaluate.composition.tasks import TASKS
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.picture_sets import DrawnPictures, RealPictures

SEEDS = 4
"""Number of pictures of each prompt, as in GenEval."""
APART = 100_000
"""Distance between the seeds of two tasks, so that no two pictures have the same seed."""


@functools.lru_cache(maxsize=8)
def prompts_of(
    count: int, *, wording: Wording = "usual", held_out: bool = True
) -> tuple[Prompt, ...]:
    """Returns `count` prompts of every task, one task after the other; see `task_prompts`."""
    return tuple(
        prompt
        for task in TASKS
        for prompt in task_prompts(task, count, wording=wording, held_out=held_out)
    )


def drawn_pictures(context: EvaluationContext, prompts: Sequence[Prompt]) -> DrawnPictures:
    """Returns the pictures that the model draws: four of each prompt, one after the other."""
    return context.drawing(
        (prompt.text for prompt in prompts for _ in range(SEEDS)),
        (number for prompt in prompts for number in _numbers(prompt)),
        title="drawing prompts of composition",
    )


@functools.lru_cache(maxsize=2)
def real_pictures(count: int, image_size: int) -> RealPictures:
    """Returns four renders of each prompt, in the order of `drawn_pictures`."""
    examples = RealScenes(prompts_of(count), image_size)
    return RealPictures(examples, title="rendering scenes of composition")


@dataclass(frozen=True)
class RealScenes:
    """Renders of scenes with the facts of prompts; everything else differs between the four."""

    prompts: tuple[Prompt, ...]
    image_size: int

    def __len__(self) -> int:
        return SEEDS * len(self.prompts)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        prompt = self.prompts[index // SEEDS]
        number = _numbers(prompt)[index % SEEDS]
        scene = prompt.facts.scene(seed=SEED, index=number)
        image = render(scene, seed=SEED, index=number, size=self.image_size)
        return Example(image=np.asarray(image), caption=prompt.text, attributes=scene.labels())


def _numbers(prompt: Prompt) -> range:
    """Returns the numbers of a prompt's pictures, which no other prompt has."""
    start = list(TASKS).index(prompt.task) * APART + prompt.number * SEEDS
    return range(start, start + SEEDS)
