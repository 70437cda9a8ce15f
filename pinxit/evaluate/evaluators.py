"""Evaluators by name: each a generator of ``(name, value)`` over an `EvaluationContext`.

To add one: such a function, and one line in `EVALUATORS`. `pinxit evaluate`, training runs and
their reports go through `measure` and show whatever values it gives. A value's name has the form
``group/name`` (or ``group/column/name``: a table with columns); values of one group are shown
together. An evaluator that has nothing to measure in a context yields nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pinxit.config import choice
from pinxit.evaluate.caption_effect import caption_effect, caption_effect_in_words
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.prompt_accuracy import accuracy_in_words, prompt_accuracy
from pinxit.evaluate.validation_loss import validation_in_words, validation_loss

Values = Mapping[str, float]


def in_words(values: Values) -> str:
    """Returns the first values, for an evaluator without words of its own."""
    shown = [f"{name} {value:.4g}" for name, value in values.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


@dataclass(frozen=True)
class Evaluator:
    """A measurement, and when a training run makes it."""

    measure: Callable[[EvaluationContext], Iterator[tuple[str, float]]]
    """Yields names and values."""
    mid_run: bool = False
    """Measured every eval_interval steps as well; otherwise at the end of the run only."""
    parameters: Literal["best", "raw", "each"] = "best"
    """The parameters a run measures: the best of the averages, the parameters themselves, or both
    and each average. With "each" a run records the first value alone, as ``group_name/average``."""
    words: Callable[[Values], str] = in_words
    """Says the values in a line."""


EVALUATORS: dict[str, Evaluator] = {
    "prompt_accuracy": Evaluator(prompt_accuracy, words=accuracy_in_words),
    "validation_loss": Evaluator(
        validation_loss, mid_run=True, parameters="each", words=validation_in_words
    ),
    "caption_effect": Evaluator(
        caption_effect, mid_run=True, parameters="raw", words=caption_effect_in_words
    ),
}
"""Evaluators by the name that ``pinxit evaluate --evaluators`` takes."""


def evaluators(names: Sequence[str] = ()) -> dict[str, Evaluator]:
    """Returns the evaluators with these names, all of them without names."""
    for name in names:
        choice("evaluators", name, EVALUATORS)
    return {name: EVALUATORS[name] for name in names or EVALUATORS}


def measure(evaluator: Evaluator, context: EvaluationContext) -> dict[str, float]:
    """Returns the values of one evaluator as plain numbers."""
    return {name: float(value) for name, value in evaluator.measure(context)}
