"""The rule of each task, on answers made by hand."""

from __future__ import annotations

import pytest

from pinxit.data.scenes.attributes import HEADS
from pinxit.evaluate.composition.facts import NamedFacts, NamedThing
from pinxit.evaluate.composition.tasks import TASKS

NOTHING = {head: values[0] for head, values in HEADS.items()}
CASTLE = NamedFacts((NamedThing("castle", "purple"),))
TWO = NamedFacts((NamedThing("castle", "purple"), NamedThing("tree", "blue")))
PLACED = NamedFacts((NamedThing("castle", "purple", "left"), NamedThing("tree", "blue", "right")))


def shows(**things: str) -> dict[str, str]:
    """A judge's answer: `left="purple castle"` and so on."""
    answer = dict(NOTHING)
    for place, words in things.items():
        colour, kind = words.split()
        answer |= {f"{place}.object": kind, f"{place}.colour": colour}
    return answer


RIGHT, SWAPPED_COLOURS, SWAPPED_PLACES = (
    shows(left="purple castle", right="blue tree"),
    shows(left="blue castle", right="purple tree"),
    shows(left="blue tree", right="purple castle"),
)
ONE_COLOUR_WRONG = shows(left="purple castle", right="red tree")
MISSING = shows(left="purple castle")
OTHER_KIND = shows(left="purple castle", right="blue house")
EXTRA = RIGHT | {"middle.object": "tent", "middle.colour": "red"}
NEXT_TO = shows(left="purple castle", middle="blue tree")


@pytest.mark.parametrize(
    ("task", "facts", "right", "wrong"),
    [
        (
            "single_object",
            CASTLE,
            [shows(middle="purple castle"), shows(right="red castle"), EXTRA],
            [NOTHING, shows(left="purple tent")],
        ),
        (
            "colors",
            CASTLE,
            [shows(middle="purple castle"), shows(left="red castle", right="purple castle"), EXTRA],
            [NOTHING, shows(left="red castle"), shows(left="red castle", right="purple tree")],
        ),
        (
            "two_object",
            TWO,
            [RIGHT, SWAPPED_COLOURS, SWAPPED_PLACES, ONE_COLOUR_WRONG, EXTRA],
            [NOTHING, MISSING, OTHER_KIND],
        ),
        (
            "position",
            PLACED,
            [RIGHT, SWAPPED_COLOURS, EXTRA],
            [NOTHING, MISSING, OTHER_KIND, SWAPPED_PLACES, NEXT_TO],
        ),
        (
            "color_attr",
            TWO,
            [RIGHT, SWAPPED_PLACES, EXTRA, NEXT_TO],
            [NOTHING, MISSING, OTHER_KIND, SWAPPED_COLOURS, ONE_COLOUR_WRONG],
        ),
    ],
)
def test_a_task_accepts_right_answers_alone(task, facts, right, wrong):
    assert [TASKS[task](facts, answer) for answer in right] == [True] * len(right)
    assert [TASKS[task](facts, answer) for answer in wrong] == [False] * len(wrong)


def test_the_colour_of_an_empty_place_does_not_count():
    answer = shows(right="red castle") | {"left.colour": "purple"}
    assert not TASKS["colors"](CASTLE, answer)


def test_every_task_of_geneval_but_counting_is_there():
    assert list(TASKS) == ["single_object", "two_object", "colors", "position", "color_attr"]
