"""GenEval as an evaluator: a user's file, its mistakes, and an evaluation that goes on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painting_model import PaintingModel

from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.geneval.detection import Detection, Detector
from pinxit.evaluate.geneval.evaluator import check_geneval, load_detector
from pinxit.evaluate.geneval.prompts import TASKS, balanced
from pinxit.evaluate.observations import Observations
from pinxit.evaluate.user_function import UserFunctionError

PROMPTS = 12
DETECTOR = '''
from pinxit.evaluate.geneval.classes import COLOURS
from pinxit.evaluate.geneval.detection import Detection
from pinxit.evaluate.geneval.prompts import TASKS, balanced

BOXES = {None: (40, 40, 50, 50), "left of": (0, 40, 9, 50), "right of": (90, 40, 99, 50),
         "above": (40, 0, 50, 9), "below": (40, 90, 50, 99)}


def detect(image, classes):
    """Sees what is right in the first `1 + task` pictures of a prompt, else nothing."""
    number, seed = 256 * int(image[0, 0, 0]) + int(image[0, 0, 1]), image[0, 0, 2]
    if seed == 128:
        return []
    prompt = balanced(PROMPTS)[number]
    if seed > TASKS.index(prompt.task):
        return []
    return [
        Detection(need.name, 0.95, BOXES[need.relation])
        for need in prompt.include
        for _ in range(need.count)
    ]


def colour_of(image, detection):
    number = 256 * int(image[0, 0, 0]) + int(image[0, 0, 1])
    for need in balanced(PROMPTS)[number].include:
        if need.name == detection.name and need.colour:
            return COLOURS[(COLOURS.index(need.colour) + (image[0, 0, 2] == 3)) % 10]
'''.replace("PROMPTS", str(PROMPTS))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("detector") / "right_at_first.py"
    path.write_text(DETECTOR)
    before = [*sys.path]
    yield path
    sys.path[:] = before


@pytest.fixture(scope="module")
def painter():
    return PaintingModel([prompt.text for prompt in balanced(PROMPTS)])


def context_of(painter, detect, **fields) -> EvaluationContext:
    return EvaluationContext(painter, detect=detect, geneval_prompts=PROMPTS, **fields)


def test_accuracies_intervals_and_reasons(painter, file: Path):
    painter.painted.clear()
    context = context_of(painter, load_detector(f"{file}:detect"))
    values = measure(EVALUATORS["geneval"], context)
    assert len(painter.painted) == 4 * PROMPTS and {seed for _, seed in painter.painted} == {
        0,
        1,
        2,
        3,
    }
    group = "geneval_12_of_553"
    expected = {
        "single_object": 1 / 4,
        "two_object": 2 / 4,
        "counting": 3 / 4,
        "colors": 3 / 4,  # the fourth picture has another colour
        "position": 1.0,
        "color_attr": 3 / 4,
    }
    assert {task: values[f"{group}/accuracy/{task}"] for task in TASKS} == expected
    assert values[f"{group}/accuracy/mean"] == pytest.approx(np.mean(list(expected.values())))
    assert values[f"{group}/accuracy/all_pictures"] == pytest.approx(32 / 48)
    assert values[f"{group}/accuracy/any_of_4"] == 1
    assert values[f"{group}/pictures/mean"] == 48 and values[f"{group}/pictures/colors"] == 8
    for row in ("mean", *TASKS):
        low, accuracy, high = (values[f"{group}/{c}/{row}"] for c in ("low", "accuracy", "high"))
        assert 0 <= low < accuracy <= high <= 1
    mistakes = {n: v for n, v in values.items() if n.startswith(f"{group}_mistakes/")}
    assert mistakes == {
        f"{group}_mistakes/too_few/single_object": 3 / 4,
        f"{group}_mistakes/too_few/two_object": 2 / 4,
        f"{group}_mistakes/too_few/counting": 1 / 4,
        f"{group}_mistakes/wrong_colour/colors": 1 / 4,
        f"{group}_mistakes/wrong_colour/color_attr": 1 / 4,
    }
    words = EVALUATORS["geneval"].words(values)
    assert words.startswith("GenEval 0.667 (") and "on a part of the benchmark" in words


@pytest.mark.slow
def test_the_whole_benchmark_has_2212_pictures_and_its_plain_name():
    model = PaintingModel([prompt.text for prompt in balanced(None)])
    context = EvaluationContext(model, detect=lambda image, classes: [])
    values = measure(EVALUATORS["geneval"], context)
    assert len(set(model.painted)) == 2212 == values["geneval/pictures/mean"]
    assert values["geneval/accuracy/mean"] == values["geneval/low/mean"] == 0
    assert 0.004 < values["geneval/high/mean"] < 0.02  # each prompt counts as one picture
    assert EVALUATORS["geneval"].words(values) == "GenEval 0.000 (0.000 to 0.017, 2212 pictures)"


def test_nothing_without_a_detector(painter):
    context = EvaluationContext(painter)
    assert measure(EVALUATORS["geneval"], context) == {}
    with pytest.raises(UsageError, match=r"^detector: none is missing, and the evaluator geneval"):
        check_geneval(context)


def test_it_goes_on_at_the_picture_that_failed(painter, file: Path, tmp_path: Path):
    flag = tmp_path / "repaired"
    broken = tmp_path / "breaks.py"
    broken.write_text(
        f"import os\nimport sys\nsys.path.append({str(file.parent)!r})\n"
        "from right_at_first import detect as right, colour_of\n"
        f"def detect(image, classes):\n"
        f"    if tuple(image[0, 0]) == (0, 7, 2) and not os.path.exists({str(flag)!r}):\n"
        "        raise MemoryError('no room')\n"
        "    return right(image, classes)\n"
    )
    folder = tmp_path / "features"

    def evaluate() -> dict[str, float]:
        painter.painted.clear()
        detect = load_detector(f"{broken}:detect")
        context = context_of(painter, detect, observations=Observations(folder))
        return measure(EVALUATORS["geneval"], context)

    with pytest.raises(
        UserFunctionError, match=r"^picture 30 \('a photo of .*'\): detector: "
    ) as e:
        evaluate()
    assert "raised MemoryError: no room" in str(e.value) and "breaks.py" in e.value.trace
    flag.touch()
    values = evaluate()
    assert len(painter.painted) == 48 - 30, "pictures before the failed one are not drawn again"
    whole = measure(EVALUATORS["geneval"], context_of(painter, load_detector(f"{file}:detect")))
    assert values == whole
    evaluate()
    assert painter.painted == [], "everything is stored"
    broken.write_text(broken.read_text() + "# edited\n")
    evaluate()
    assert len(painter.painted) == 48, "the results of another file are not reused"


def test_the_detector_is_tried_before_anything_is_drawn(painter, file: Path):
    painter.painted.clear()
    check_geneval(context_of(painter, load_detector(f"{file}:detect")))
    with pytest.raises(UserFunctionError, match=r"detector: .*<lambda> returned a NoneType"):
        check_geneval(context_of(painter, lambda image, classes: None))
    with pytest.raises(UsageError, match=r"a function of \(image, classes\)"):
        check_geneval(context_of(painter, lambda image: []))
    with pytest.raises(UsageError, match="geneval_prompts: 3 is too small"):
        check_geneval(replace(context_of(painter, lambda image, classes: []), geneval_prompts=3))
    assert painter.painted == []


IMAGE = np.zeros((20, 30, 3), np.uint8)
GOOD = {"name": "dog", "score": 0.5, "box": (1, 2, 3, 4), "colour": "red"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mouse"}, r"of the class 'mouse' \(perhaps 'computer mouse'\); valid: the names"),
        ({"name": "sofa"}, "of the class 'sofa'"),
        ({"name": "person "}, "perhaps 'person'"),
        ({"score": 1.5}, "returned the score 1.5 for a dog; valid: from 0 to 1"),
        ({"score": float("nan")}, "returned the score nan"),
        ({"score": "high"}, "returned the score 'high'"),
        ({"box": (1, 2, 3)}, r"returned the box \(1, 2, 3\) for a dog; valid: left, top, right"),
        ({"box": (10, 10, 5, 20)}, "returned the box"),
        ({"box": (1, 2, 3, float("inf"))}, "returned the box"),
        ({"mask": np.ones((30, 20), bool)}, r"a mask of shape \(30, 20\) and type bool"),
        ({"mask": np.ones((20, 30))}, "and type float64 for a dog; valid: None, or a bool array"),
        ({"colour": None}, "a dog without a colour; valid: a colour in each Detection, or a funct"),
        ({"colour": "scarlet"}, "gave the colour 'scarlet'; valid: red, orange"),
    ],
)
def test_wrong_detections_are_refused(changes, message: str):
    arguments = GOOD | changes
    build = lambda image, classes: [Detection(**arguments)]  # noqa: E731
    if isinstance(changes.get("score"), str):  # the dataclass itself refuses it under type checks
        build = lambda image, classes: [_unchecked(arguments)]  # noqa: E731
    with pytest.raises(UserFunctionError, match=message):
        Detector(build)(IMAGE)


def _unchecked(arguments: dict) -> Detection:
    detection = object.__new__(Detection)
    for name, value in ({"mask": None} | arguments).items():
        object.__setattr__(detection, name, value)
    return detection


def test_good_detections_are_accepted():
    mask = np.ones((20, 30), bool)
    detection = Detection("dog", np.float32(1), np.array([1.0, 2, 3, 4]), mask, "red")
    detector = Detector(lambda image, classes: [detection])
    assert detector(IMAGE) == [detection] and detector.colour(IMAGE, detection) == "red"
    for wrong in ([GOOD], {"dog": 1}, (d for d in [detection])):
        with pytest.raises(UserFunctionError, match=r"valid: a list of Detection objects"):
            Detector(lambda image, classes, wrong=wrong: wrong)(IMAGE)
