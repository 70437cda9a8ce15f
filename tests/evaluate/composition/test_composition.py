"""The evaluator: its ceiling, its floor, and what it says about pictures that get worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pipeline import tiny_pipeline

from pinxit.config import UsageError
from pinxit.evaluate.composition.evaluator import (
    composition_in_words,
    shuffled_accuracy,
    verdicts,
)
from pinxit.evaluate.composition.pictures import drawn_pictures, prompts_of, real_pictures
from pinxit.evaluate.composition.sheet import composition_sheet, objects_in_words, shown_prompts
from pinxit.evaluate.composition.table import composition_table
from pinxit.evaluate.composition.tasks import TASKS
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.extractors.judge_features import JudgeAnswers
from pinxit.evaluate.judge import Judge, load_judge

PROMPTS = 8
pytestmark = pytest.mark.filterwarnings("ignore:.*tokens that the text encoder reads")
PARTS = ("object", "colour")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="module")
def answers(judge: Judge) -> list[dict[str, str]]:
    """The judge's answers about real renders."""
    extractor, pictures = JudgeAnswers(judge), real_pictures(PROMPTS, 64)
    features = extractor(pictures.pictures(range(len(pictures))), pictures.prompts)
    return extractor.answers(features)


@pytest.fixture(scope="module")
def context(bundle: Path, judge: Judge) -> EvaluationContext:
    return EvaluationContext(tiny_pipeline(bundle), judge=judge, composition_prompts=2)


@pytest.fixture(scope="module")
def values(context: EvaluationContext) -> dict[str, float]:
    return measure(EVALUATORS["composition"], context)


def accuracy(answers: list[dict[str, str]]) -> dict[str, float]:
    return {task: one.mean() for task, one in verdicts(prompts_of(PROMPTS), answers).items()}


def test_real_renders_are_right_and_do_not_fit_other_prompts(answers):
    assert np.mean(list(accuracy(answers).values())) >= 0.99
    assert min(accuracy(answers).values()) >= 0.96, "one picture of 32"
    floor = shuffled_accuracy(prompts_of(PROMPTS), answers)
    assert list(floor) == list(TASKS)
    assert max(floor.values()) < 0.4
    assert floor["color_attr"] < 0.1 and floor["position"] < 0.15


def test_wrong_answers_lower_the_tasks_that_they_concern(answers):
    places = ("left", "middle", "right")
    turned = {"left": "right", "middle": "left", "right": "middle"}
    moved = [
        answer
        | {f"{place}.{of}": answer[f"{turned[place]}.{of}"] for place in places for of in PARTS}
        for answer in answers
    ]
    assert accuracy(moved)["position"] == 0
    assert accuracy(moved) | {"position": 1} == accuracy(answers) | {"position": 1}
    red = [answer | {f"{place}.colour": "red" for place in places} for answer in answers]
    assert accuracy(red)["color_attr"] == 0 < accuracy(red)["colors"] < 0.4
    assert accuracy(red)["two_object"] == accuracy(answers)["two_object"]
    half = [answers[i] | ({"left.object": "none"} if i % 2 else {}) for i in range(len(answers))]
    assert all(accuracy(half)[task] < accuracy(answers)[task] for task in TASKS)


def test_the_evaluator_yields_every_figure(values: dict[str, float]):
    columns = ("accuracy", "low", "high", "ceiling", "floor", "pictures")
    names = [f"composition/{column}/{task}" for column in columns for task in (*TASKS, "mean")]
    assert list(values) == names
    for task in (*TASKS, "mean"):
        low, mean, high = (values[f"composition/{c}/{task}"] for c in ("low", "accuracy", "high"))
        assert 0 <= low <= mean <= high <= 1
    of_tasks = [values[f"composition/accuracy/{task}"] for task in TASKS]
    assert values["composition/accuracy/mean"] == pytest.approx(np.mean(of_tasks))
    assert values["composition/pictures/colors"] == 8
    assert values["composition/pictures/mean"] == 40
    assert "composition of held-out prompts 0." in composition_in_words(values)
    table = composition_table(values).splitlines()
    assert len(table) == 10 and table[7].startswith("| mean | ") and table[7].endswith(" | 40 |")
    assert "2 prompts a task, 4 pictures a prompt" in table[9] and "counting" in table[9]


def test_pictures_have_their_own_seeds_and_prompts(context: EvaluationContext):
    drawn, real = drawn_pictures(context, prompts_of(2)), real_pictures(2, 16)
    assert len(set(drawn.seeds)) == len(drawn) == 40 == len(real)
    assert drawn.prompts == real.prompts
    assert len(set(drawn.prompts)) >= 9
    needs = [pictures for pictures, _ in EVALUATORS["composition"].needs(context)]
    assert [one.about() for one in needs] == [drawn.about(), real.about()]


def test_nothing_is_measured_without_a_judge_or_prompts(context: EvaluationContext, tmp_path: Path):
    for judge, count in ((None, 2), (context.judge, 0)):
        other = EvaluationContext(context.model, judge=judge, composition_prompts=count)
        assert measure(EVALUATORS["composition"], other) == {}
        assert not [*EVALUATORS["composition"].needs(other)]
        with pytest.raises(UsageError, match="nothing to draw"):
            composition_sheet(other, tmp_path / "sheet.png")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [-3, 1, 1000])
def test_impossible_numbers_are_refused_before_drawing(context: EvaluationContext, count: int):
    other = EvaluationContext(context.model, judge=context.judge, composition_prompts=count)
    with pytest.raises(UsageError, match=f"composition_prompts: {count} is "):
        measure(EVALUATORS["composition"], other)


def test_the_sheet_frames_right_and_wrong_pictures(
    context: EvaluationContext, values: dict[str, float], tmp_path: Path, monkeypatch
):
    """The second task's verdicts are changed, so that both frames are seen."""

    def some_right(prompts, answers):
        right = verdicts(prompts, answers)
        return right | {"two_object": np.array([[False, True, True, True]] * 2)}

    monkeypatch.setattr("pinxit.evaluate.composition.sheet.ROWS", 1)
    monkeypatch.setattr("pinxit.evaluate.composition.sheet.verdicts", some_right)
    composition_sheet(context, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(2**24)}
    assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= colours


def test_the_sheet_shows_the_worst_prompts_and_the_best():
    right = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]], bool)
    assert shown_prompts(right) == [3, 1, 0]
    assert shown_prompts(right[:2]) == [1, 0]
    answer = {f"{place}.{of}": "none" for place in ("left", "middle", "right") for of in PARTS}
    assert objects_in_words(answer) == "no object"
    answer |= {"right.object": "tree", "right.colour": "red"}
    assert objects_in_words(answer) == "red tree right"
