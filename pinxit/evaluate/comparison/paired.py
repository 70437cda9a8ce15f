"""Differences between two models on the same prompts and seeds, with an interval.

Both models draw the same prompts, so that most of the chance in a difference, that of which prompts
were drawn, is in both figures and cancels. The interval is a paired bootstrap (Efron and
Tibshirani, 1993, chapter 13): pictures are drawn with replacement, the same for both models, and
the figure is computed again from them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.attributes import ATTRIBUTES, score
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.clip_score import clip_of, cosines
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.judge_features import judge_answers
from pinxit.evaluate.headlines import ACCURACY

RESAMPLES = 2000
"""Number of samples of the bootstrap."""
LEVEL = 0.95
"""The probability that the interval is meant to cover the difference."""
SEED = 0


@dataclass(frozen=True)
class PictureScores:
    """The contribution of each picture to a value, which is the mean over columns of
    ``sums.sum(0) / counts.sum(0)``."""

    sums: Float[np.ndarray, "n columns"]
    """The number of a picture's right answers by attribute, or its cosine."""
    counts: Float[np.ndarray, "n columns"]
    """The number of a picture's answers by attribute, or 1."""

    def resampled(self, times: Float[np.ndarray, "r n"]) -> Float[np.ndarray, " r"]:
        """Returns the value of each resample, in which picture i occurs ``times[:, i]`` times."""
        sums, counts = times @ self.sums, times @ self.counts
        known = counts > 0
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=known)
        return means.sum(axis=1) / np.maximum(known.sum(axis=1), 1)


@dataclass(frozen=True)
class Difference:
    """The difference of one value between two models, and its 95 % interval."""

    value: str
    """The name of the value."""
    difference: float
    """The value of the model minus that of the model it is compared with."""
    low: float
    high: float
    pictures: int
    """The number of pairs of pictures."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0, so that chance hardly explains the difference."""
        return self.low > 0 or self.high < 0


def picture_scores(
    context: EvaluationContext, measured: Collection[str]
) -> dict[str, PictureScores]:
    """Returns the scores of the drawn pictures for each value that is a mean over pictures.

    `measured` are the names of the evaluators that were measured. The features that they read are
    read again, so that nothing is drawn for this.
    """
    scores: dict[str, PictureScores] = {}
    scenes, features = context.prompted, context.observations.features
    if "prompt_accuracy" in measured and context.judge is not None and isinstance(scenes, Scenes):
        judge = judge_answers(context.judge)
        rows = features(context.drawn, judge)
        answers = [answer for block in rows.blocks() for answer in judge.answers(block)]
        scores[ACCURACY] = _of_answers(scenes, answers)
    clip = clip_of(context) if "clip_score" in measured else None
    if clip is not None:
        sums = 100 * cosines(clip, features(context.drawn, clip))[:, None]
        scores[f"clip_score/drawn/{clip.network}"] = PictureScores(sums, np.ones_like(sums))
    return scores


def _of_answers(scenes: Scenes, answers: Sequence[Mapping[str, str]]) -> PictureScores:
    """Returns the scores of the judge's answers, with a column for each attribute."""
    sums, counts = np.zeros((2, len(answers), len(ATTRIBUTES)))
    for i, answer in enumerate(answers):
        for attribute, correct in score(scenes.scene(i), answer):
            column = list(ATTRIBUTES).index(attribute)
            sums[i, column] += correct
            counts[i, column] += 1
    return PictureScores(sums, counts)


def paired_difference(value: str, one: PictureScores, other: PictureScores) -> Difference:
    """Returns the difference of a value, `one` minus `other`, whose pictures are paired."""
    if one.sums.shape != other.sums.shape:
        raise ValueError(f"{value}: scores of shapes {one.sums.shape} and {other.sums.shape}")
    count = len(one.sums)
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    differences = one.resampled(times) - other.resampled(times)
    low, high = np.quantile(differences, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    whole = np.ones((1, count))
    difference = (one.resampled(whole) - other.resampled(whole))[0]
    return Difference(value, float(difference), float(low), float(high), count)


def paired_differences(
    one: Mapping[str, PictureScores], other: Mapping[str, PictureScores]
) -> list[Difference]:
    """Returns the differences of all values that both models have, `one` minus `other`."""
    return [paired_difference(name, one[name], other[name]) for name in one if name in other]
