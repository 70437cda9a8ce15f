"""Prompt accuracy: measures whether pictures show the attributes that held-out prompts name.

The model draws each prompt once, the judge reads the attributes from the picture, and each
attribute in the prompt counts as right or wrong. Two more figures give the range of the result. The
*ceiling* is the accuracy on real renders of the same scenes, and *chance* is that on real renders
of other prompts. ``mean`` is the mean over the attributes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pinxit.data.scenes.attributes import ATTRIBUTES, score
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.judge_features import judge_answers
from pinxit.evaluate.picture_sets import PictureSet


def prompt_accuracy(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``prompts/{accuracy,ceiling,chance}/{mean,attribute}`` and its value.

    Yields nothing without a judge or prompts.
    """
    judge, scenes = context.judge, context.prompted
    if judge is None or not isinstance(scenes, Scenes):
        return
    extractor = judge_answers(judge)

    def answers(pictures: PictureSet) -> list[dict[str, str]]:
        rows = context.observations.features(pictures, extractor)
        return [answer for block in rows.blocks() for answer in extractor.answers(block)]

    real = answers(context.real)
    yield from named("prompts/accuracy", accuracy(scenes, answers(context.drawn)))
    yield from named("prompts/ceiling", accuracy(scenes, real))
    yield from named("prompts/chance", accuracy(scenes, real[1:] + real[:1]))


def prompt_accuracy_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `prompt_accuracy` reads."""
    if context.judge is not None and context.prompts:
        yield from ((s, judge_answers(context.judge)) for s in (context.drawn, context.real))


def accuracy_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the mean accuracy and its ceiling."""
    accuracy, ceiling = (values[f"prompts/{kind}/mean"] for kind in ("accuracy", "ceiling"))
    return f"held-out prompt accuracy {accuracy:.3f} (ceiling {ceiling:.3f})"


def accuracy(scenes: Scenes, answers: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Returns the fraction of right answers by attribute; answer i belongs to scene i."""
    right: dict[str, list[bool]] = defaultdict(list)
    for i, answer in enumerate(answers):
        for attribute, correct in score(scenes.scene(i), answer):
            right[attribute].append(correct)
    return {name: float(np.mean(right[name])) for name in ATTRIBUTES if right[name]}


def named(prefix: str, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yields the mean, then each value, with the prefix before the name."""
    yield f"{prefix}/mean", float(np.mean(list(values.values())))
    for name, value in values.items():
        yield f"{prefix}/{name}", value
