"""Defines the tasks of composition: the rule by which a picture of each is right.

The tasks are those of GenEval (Ghosh et al. 2023, arXiv 2310.11513; its code is djghosh13/geneval)
on scenes. GenEval's sixth task, counting, is left out, because scenes show at most two objects.

GenEval detects objects with a network and keeps those with a confidence above 0.3. Here the judge
gives its most probable answer for each of three places: a kind with its colour, or nothing. So
there are at most three objects, and they have no order of confidence. As in GenEval's tasks other
than counting, further objects do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pinxit.data.scenes.attributes import PLACES
from pinxit.evaluate.composition.facts import NamedFacts

Answer = Mapping[str, str]
"""The judge's answer for every head of one picture."""


def single_object(facts: NamedFacts, answer: Answer) -> bool:
    """Returns whether the kind is at some place. The colour does not matter.

    GenEval: at least one object of the class is detected. The rule is the same.
    """
    return _all_kinds(facts, answer)


def two_object(facts: NamedFacts, answer: Answer) -> bool:
    """Returns whether each of both kinds is at some place. Colours do not matter.

    GenEval: at least one object of each class is detected. The rule is the same.
    """
    return _all_kinds(facts, answer)


def colors(facts: NamedFacts, answer: Answer) -> bool:
    """Returns whether the kind is at some place with its colour.

    GenEval: the most confident object of the class has the colour, of ten, that CLIP finds most
    probable. This rule is looser where a picture shows the kind twice, because either may have the
    colour, and there are six colours.
    """
    return _all_coloured(facts, answer)


def position(facts: NamedFacts, answer: Answer) -> bool:
    """Returns whether each of both kinds is at its place: left, middle or right.

    GenEval: the most confident object of one class is left of, right of, above or below that of
    the other. This rule is stricter, because each object has a place in the picture instead of a
    side of the other one, and it knows no above and below. Colours do not matter to either.
    """
    return all(answer[f"{thing.place}.object"] == thing.kind for thing in facts.things)


def color_attr(facts: NamedFacts, answer: Answer) -> bool:
    """Returns whether each of both kinds is at some place with its own colour.

    GenEval: the most confident object of each class has its colour. The rule is looser where a
    picture shows a kind twice, as that of `colors`.
    """
    return _all_coloured(facts, answer)


TASKS: dict[str, Callable[[NamedFacts, Answer], bool]] = {
    rule.__name__: rule for rule in (single_object, two_object, colors, position, color_attr)
}
"""The rule of each task by the task's name in GenEval."""


def _all_kinds(facts: NamedFacts, answer: Answer) -> bool:
    kinds = {answer[f"{place}.object"] for place in PLACES}
    return all(thing.kind in kinds for thing in facts.things)


def _all_coloured(facts: NamedFacts, answer: Answer) -> bool:
    coloured = {(answer[f"{place}.object"], answer[f"{place}.colour"]) for place in PLACES}
    return all((thing.kind, thing.colour) in coloured for thing in facts.things)
