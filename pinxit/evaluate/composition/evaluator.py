"""Measures composition: whether pictures show the objects, colours and places that prompts name.

The prompts are held-out ones (`prompts`), each is drawn four times, and the judge reads the
pictures. A picture is right or wrong by the rule of its task (`tasks`). As in GenEval, a task's
accuracy is the fraction of its pictures that are right, and ``mean`` is the mean over the tasks.

Two more figures give the range of the result. The *ceiling* is the accuracy of real renders of the
same prompts, which the judge may misread. The *floor* is the accuracy of the drawn pictures by the
other prompts of their task, the mean over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from pinxit.config import UsageError, positive
from pinxit.evaluate.composition.pictures import (
    SEEDS,
    drawn_pictures,
    prompts_of,
    real_pictures,
)
from pinxit.evaluate.composition.prompts import Prompt
from pinxit.evaluate.composition.tasks import TASKS, Answer
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.judge_features import judge_answers
from pinxit.evaluate.intervals import interval, mean_interval
from pinxit.evaluate.picture_sets import PictureSet

Verdicts = dict[str, Bool[np.ndarray, "prompts seeds"]]
"""Whether each picture of each prompt of a task is right."""


def composition(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``composition/{accuracy,low,high,ceiling,floor,pictures}/{task,mean}`` and its value.

    `low` and `high` are the bounds of the accuracy's 95 % interval, `pictures` is the number of
    drawn ones. Yields nothing without a judge or without prompts of composition.
    """
    if not measured(context):
        return
    prompts = prompts_of(context.composition_prompts)
    drawn, real = (read_answers(context, pictures) for pictures in _pictures(context))
    right = verdicts(prompts, drawn)
    means = {task: float(one.mean()) for task, one in right.items()}
    bounds = {task: interval(one) for task, one in right.items()}
    low, high = mean_interval(list(means.values()), list(bounds.values()))
    counts = {task: float(one.size) for task, one in right.items()}
    ceiling = {task: float(one.mean()) for task, one in verdicts(prompts, real).items()}
    columns = {
        "accuracy": _with_mean(means),
        "low": {task: bound[0] for task, bound in bounds.items()} | {"mean": low},
        "high": {task: bound[1] for task, bound in bounds.items()} | {"mean": high},
        "ceiling": _with_mean(ceiling),
        "floor": _with_mean(shuffled_accuracy(prompts, drawn)),
        "pictures": counts | {"mean": sum(counts.values())},
    }
    for column, values in columns.items():
        yield from ((f"composition/{column}/{task}", values[task]) for task in (*TASKS, "mean"))


def composition_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `composition` reads."""
    if measured(context) and context.judge is not None:
        yield from ((pictures, judge_answers(context.judge)) for pictures in _pictures(context))


def composition_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the mean accuracy, its interval, its ceiling and its floor."""
    mean, low, high, ceiling, floor = (
        values[f"composition/{column}/mean"]
        for column in ("accuracy", "low", "high", "ceiling", "floor")
    )
    return (
        f"composition of held-out prompts {mean:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"ceiling {ceiling:.3f}, floor {floor:.3f})"
    )


def read_answers(context: EvaluationContext, pictures: PictureSet) -> list[dict[str, str]]:
    """Returns the judge's answers about the pictures."""
    if context.judge is None:
        raise UsageError("composition needs the judge of scenes, and this evaluation has none")
    extractor = judge_answers(context.judge)
    rows = context.observations.features(pictures, extractor)
    return [answer for block in rows.blocks() for answer in extractor.answers(block)]


def verdicts(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Verdicts:
    """Returns whether the pictures are right; those of a prompt follow each other in `answers`."""
    numbers = {task: [i for i, one in enumerate(prompts) if one.task == task] for task in TASKS}
    return {
        task: np.array([_right(prompts[i], i, answers) for i in of_task], bool)
        for task, of_task in numbers.items()
    }


def shuffled_accuracy(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> dict[str, float]:
    """Returns the accuracy of the pictures by all other prompts of their task."""
    floor = {}
    for task in TASKS:
        of_task = [i for i, prompt in enumerate(prompts) if prompt.task == task]
        pairs = ((other, i) for i in of_task for other in of_task if other != i)
        floor[task] = float(np.mean([_right(prompts[other], i, answers) for other, i in pairs]))
    return floor


def _right(prompt: Prompt, place: int, answers: Sequence[Answer]) -> list[bool]:
    """Returns whether the pictures of the prompt at `place` are right by a prompt."""
    rule = TASKS[prompt.task]
    return [rule(prompt.facts, answer) for answer in answers[place * SEEDS : (place + 1) * SEEDS]]


def measured(context: EvaluationContext) -> bool:
    """Returns whether the context has a judge and prompts of composition."""
    positive("composition_prompts", context.composition_prompts, minimum=0)
    return context.judge is not None and context.composition_prompts > 0


def _pictures(context: EvaluationContext) -> tuple[PictureSet, PictureSet]:
    """Returns the drawn pictures and the real ones."""
    count = context.composition_prompts
    drawn = drawn_pictures(context, prompts_of(count))
    return drawn, real_pictures(count, context.model.image_size)


def _with_mean(values: Mapping[str, float]) -> dict[str, float]:
    return {**values, "mean": float(np.mean(list(values.values())))}
