"""Evaluators by name: each a generator of ``(name, value)`` over an `EvaluationContext`.

To add one, write such a function, and add one line to `EVALUATORS`. `pinxit evaluate`, training
runs and their reports call `measure` and show all its values. A value's name has the form
``group/name``, or ``group/column/name`` for a table with columns. The values of one group are shown
together. An evaluator that has nothing to measure in a context yields nothing.

Evaluators of pictures read features of sets of pictures (`EvaluationContext.observations`), and say
beforehand which (`needs`), so that every picture is drawn once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pinxit.config import choice
from pinxit.evaluate.caption_effect import caption_effect, caption_effect_in_words
from pinxit.evaluate.clip_score import clip_score, clip_score_in_words, clip_score_needs
from pinxit.evaluate.composition.evaluator import (
    composition,
    composition_in_words,
    composition_needs,
)
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.distances.cautions import distances_in_words
from pinxit.evaluate.distances.evaluator import distances, distances_needs
from pinxit.evaluate.dpg.evaluator import check_dpg, dpg, dpg_in_words, dpg_needs
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.geneval.evaluator import (
    check_geneval,
    geneval,
    geneval_in_words,
    geneval_needs,
)
from pinxit.evaluate.picture_sets import PictureSet
from pinxit.evaluate.prompt_accuracy import (
    accuracy_in_words,
    prompt_accuracy,
    prompt_accuracy_needs,
)
from pinxit.evaluate.scene_details import details, details_in_words, details_needs
from pinxit.evaluate.validation_loss import validation_in_words, validation_loss
from pinxit.evaluate.variety import variety, variety_in_words, variety_needs

Values = Mapping[str, float]
Need = tuple[PictureSet, Extractor]
"""A set of pictures and the extractor of features that an evaluator will read."""


def in_words(values: Values) -> str:
    """Returns a line with the first four values; the default of `Evaluator.words`."""
    shown = [f"{name} {value:.4g}" for name, value in values.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


@dataclass(frozen=True)
class Evaluator:
    """A measurement, and when and on which parameters a training run makes it."""

    measure: Callable[[EvaluationContext], Iterator[tuple[str, float]]]
    """A generator that yields names and values."""
    mid_run: bool = False
    """Whether a run also measures every eval_interval steps, instead of only at its end."""
    parameters: Literal["best", "raw", "each"] = "best"
    """The parameters that a run measures: the best average ("best"), the parameters themselves
    ("raw"), or the parameters and every average ("each"). With "each" a run records only the first
    value, as ``group_name/average``."""
    words: Callable[[Values], str] = in_words
    """A function that returns the values as one line of text."""
    needs: Callable[[EvaluationContext], Iterable[Need]] = lambda context: ()
    """A function that returns the features of pictures that `measure` will read."""
    check: Callable[[EvaluationContext], None] = lambda context: None
    """A function that raises `UsageError` if the measurement would fail; it draws nothing. It is
    called by `measure_all`, before anything is drawn, unless there are no `needs`."""


EVALUATORS: dict[str, Evaluator] = {
    "prompt_accuracy": Evaluator(
        prompt_accuracy, words=accuracy_in_words, needs=prompt_accuracy_needs
    ),
    "composition": Evaluator(composition, words=composition_in_words, needs=composition_needs),
    "details": Evaluator(details, words=details_in_words, needs=details_needs),
    "variety": Evaluator(variety, words=variety_in_words, needs=variety_needs),
    "validation_loss": Evaluator(
        validation_loss, mid_run=True, parameters="each", words=validation_in_words
    ),
    "caption_effect": Evaluator(
        caption_effect, mid_run=True, parameters="raw", words=caption_effect_in_words
    ),
    "geneval": Evaluator(geneval, words=geneval_in_words, needs=geneval_needs, check=check_geneval),
    "dpg": Evaluator(dpg, words=dpg_in_words, needs=dpg_needs, check=check_dpg),
    "distances": Evaluator(distances, words=distances_in_words, needs=distances_needs),
    "clip_score": Evaluator(clip_score, words=clip_score_in_words, needs=clip_score_needs),
}
"""The evaluators by the names that ``pinxit evaluate --evaluators`` accepts."""


def evaluators(names: Sequence[str] = ()) -> dict[str, Evaluator]:
    """Returns the evaluators with these names; without names, returns all evaluators."""
    for name in names:
        choice("evaluators", name, EVALUATORS)
    return {name: EVALUATORS[name] for name in names or EVALUATORS}


def expect(chosen: Iterable[Evaluator], context: EvaluationContext) -> None:
    """Notes which features these evaluators will read, so that pictures are made once for all."""
    for evaluator in chosen:
        for pictures, extractor in evaluator.needs(context):
            context.observations.expect(pictures, extractor)


def measure(evaluator: Evaluator, context: EvaluationContext) -> dict[str, float]:
    """Returns the values of one evaluator as plain numbers."""
    expect([evaluator], context)
    return {name: float(value) for name, value in evaluator.measure(context)}


def measure_all(
    chosen: Iterable[Evaluator],
    context: EvaluationContext,
    *,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, float]:
    """Returns the values of all these evaluators, and says each one's in a line."""
    chosen = list(chosen)
    for evaluator in chosen:
        if any(True for _ in evaluator.needs(context)):
            evaluator.check(context)
    expect(chosen, context)
    values: dict[str, float] = {}
    for evaluator in chosen:
        if new := measure(evaluator, context):
            values |= new
            say(evaluator.words(new))
    return values
