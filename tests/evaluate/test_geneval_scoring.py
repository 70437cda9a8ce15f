"""GenEval's rules on boxes made by hand; each expected result is that of the published code.

11,060 random cases agreed with evaluate_images.py of djghosh13/geneval at af4902f: the objects that
count, correct or not, and the kinds of all reasons.
"""

from __future__ import annotations

import numpy as np
import pytest

from pinxit.evaluate.geneval.detection import Detection
from pinxit.evaluate.geneval.prompts import GenEvalPrompt, Requirement
from pinxit.evaluate.geneval.scoring import (
    Rules,
    counted_objects,
    geneval_reasons,
    overlap,
    relations,
)

DOG, CAT = Requirement("dog"), Requirement("cat")
TWO = GenEvalPrompt("two_object", "a photo of a dog and a cat", (DOG, CAT))
THREE = GenEvalPrompt(
    "counting", "a photo of three dogs", (Requirement("dog", 3),), (Requirement("dog", 4),)
)
RED = GenEvalPrompt("colors", "a photo of a red dog", (Requirement("dog", colour="red"),))
LEFT = GenEvalPrompt(
    "position", "a photo of a dog left of a cat", (CAT, Requirement("dog", relation="left of"))
)
BINDING = GenEvalPrompt(
    "color_attr",
    "a photo of a red dog and a blue cat",
    (Requirement("dog", colour="red"), Requirement("cat", colour="blue")),
)


def seen(name: str, score: float = 0.95, box=(0, 0, 10, 10), colour: str | None = None):
    return Detection(name, score, box, colour=colour)


def kinds(prompt: GenEvalPrompt, *detections: Detection) -> list[str]:
    colour = lambda detection: detection.colour  # noqa: E731
    reasons = geneval_reasons(prompt, detections, colour=colour)
    assert all(reason.text for reason in reasons)
    return [reason.kind for reason in reasons]


def test_two_objects():
    assert kinds(TWO, seen("dog"), seen("cat"), seen("cat"), seen("bird")) == []
    assert kinds(TWO, seen("dog")) == ["too few"]
    assert kinds(TWO) == ["too few", "too few"]


@pytest.mark.parametrize(("score", "count"), [(0.3, 0), (0.30001, 1), (float("1e-9"), 0)])
def test_an_object_must_be_above_the_threshold(score: float, count: int):
    assert len(counted_objects("two_object", [seen("dog", score)]).get("dog", [])) == count


def test_a_score_on_the_threshold_is_compared_as_float32():
    """0.3 as float32 is above 0.3 as float64, but not above 0.3 as float32."""
    assert counted_objects("two_object", [seen("dog", float(np.float32(0.3)))]) == {}
    assert counted_objects("counting", [seen("dog", float(np.float32(0.9)))]) == {}


def test_counting_is_exact_and_of_sure_objects():
    sure, unsure = seen("dog", 0.95), seen("dog", 0.89)
    assert kinds(THREE, sure, sure, sure) == []
    assert kinds(THREE, sure, sure, sure, unsure, unsure) == []
    assert kinds(THREE, sure, sure, unsure) == ["too few"]
    assert kinds(THREE, *[sure] * 4) == ["too many"]
    assert kinds(THREE, sure, sure, sure, *[seen("cat")] * 9) == []


def test_at_most_sixteen_objects_of_a_class_are_looked_at():
    scores = np.linspace(0.5, 0.9, 20)
    dogs = [seen("dog", float(score)) for score in scores]
    chosen = counted_objects("two_object", [*dogs, seen("cat")])
    assert [each.score for each in chosen["dog"]] == sorted(scores, reverse=True)[:16]
    assert len(chosen["cat"]) == 1


def test_the_colour_is_that_of_the_most_confident_object_alone():
    red, blue = seen("dog", 0.8, colour="red"), seen("dog", 0.9, colour="blue")
    assert kinds(RED, red) == [] and kinds(RED, blue, red) == ["wrong colour"]
    assert kinds(RED, seen("dog", 0.8, colour="blue"), seen("dog", 0.9, colour="red")) == []
    assert kinds(RED) == ["too few"], "a missing object has no wrong colour"


def test_no_other_colour_is_asked_for():
    asked: list[Detection] = []

    def colour(detection: Detection) -> str:
        asked.append(detection)
        return "red"

    dogs = [seen("dog", score) for score in (0.5, 0.9, 0.2)]
    assert geneval_reasons(RED, [*dogs, seen("cat")], colour=colour) == []
    assert asked == [dogs[1]]


def test_colours_belong_to_their_objects():
    right = seen("dog", colour="red"), seen("cat", colour="blue")
    swapped = seen("dog", colour="blue"), seen("cat", colour="red")
    assert kinds(BINDING, *right) == []
    assert kinds(BINDING, *swapped) == ["wrong colour", "wrong colour"]


CENTRE = (100, 100, 120, 120)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 100, 20, 120), {"left of"}),
        ((200, 100, 220, 120), {"right of"}),
        ((100, 0, 120, 20), {"above"}),
        ((100, 200, 120, 220), {"below"}),
        ((0, 0, 20, 20), {"left of", "above"}),
        ((96, 100, 116, 120), set()),  # the centres are 4 apart, .1 (20 + 20)
        ((94, 100, 114, 120), set()),  # 6 apart: (6 - 4) / 6 is below one half
        ((92, 100, 112, 120), set()),  # 8 apart: (8 - 4) / 8 is one half, not above it
        ((91, 100, 111, 120), {"left of"}),
        ((0, 60, 20, 80), {"left of"}),  # 40 higher: 36 / 107.7
        (CENTRE, set()),
    ],
)
def test_relations(box, expected):
    assert relations(seen("dog", box=box), seen("cat", box=CENTRE)) == expected


def test_position():
    cat, left, right = (
        seen(n, box=b)
        for n, b in (("cat", CENTRE), ("dog", (0, 100, 20, 120)), ("dog", (200, 100, 220, 120)))
    )
    assert kinds(LEFT, cat, left) == [] and kinds(LEFT, cat, right) == ["wrong position"]
    assert kinds(LEFT, left) == ["too few", "wrong position"], "no cat, so no place left of it"
    assert kinds(LEFT, cat) == ["too few"]
    sure = seen("dog", 0.99, right.box)
    assert kinds(LEFT, cat, left, sure) == ["wrong position"], "the most confident dog alone"


def test_overlap_drops_nothing_unless_asked():
    a, b = seen("dog", 0.95, (0, 0, 9, 9)), seen("dog", 0.94, (0, 0, 9, 4))
    assert overlap(a, b) == pytest.approx(0.5)
    assert overlap(a, seen("dog", box=(50, 50, 60, 60))) == 0
    assert len(counted_objects("counting", [a, b])["dog"]) == 2
    assert counted_objects("counting", [b, a], Rules(max_overlap=0.5)) == {"dog": [a]}
    assert len(counted_objects("counting", [a, b], Rules(max_overlap=0.51))["dog"]) == 2
