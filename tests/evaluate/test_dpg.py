"""DPG-Bench: the file of questions, the arithmetic, and the evaluator.

On 400 random tables of made-up questions and answers, in which some parents do not exist, the score
and all categories agreed with compute_dpg_bench.py of TencentQQGYLab/ELLA at its latest commit.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from painting_model import PaintingModel

from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.dpg.evaluator import check_dpg, load_answerer
from pinxit.evaluate.dpg.questions import COLUMNS, DPGPrompt, Question, read_questions
from pinxit.evaluate.dpg.scoring import UnknownParent, dependent_scores, dpg_scores, prompt_score
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.user_function import UserFunctionError

ROWS = [
    ("a", "a red house", 1, "0", "entity - whole (house)", "Is there a house?"),
    ("a", "a red house", 2, "1", "attribute - color (house, red)", "Is the house red?"),
    ("b", "a dog, and a cat", 1, "0", "entity - whole (dog)", "Is there a dog?"),
    ("b", "a dog, and a cat", 2, "0", "entity - whole (cat)", "Is there a cat?"),
    ("b", "a dog, and a cat", 3, "1, 2", "relation - spatial (dog, cat)", "Is it near?"),
    ("b", "a dog, and a cat", 4, "3", "global (near)", "Is it a photo?"),
    ("c", "the sea", 1, "0", "entity - whole (sea)", "Is there a sea?"),
]


def table(path: Path, rows=ROWS, columns=COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def chain(*parents: tuple[int, ...]) -> dict[int, Question]:
    return {n: Question(n, f"{n}?", p, "entity - whole") for n, p in enumerate(parents, 1)}


def score(questions: dict[int, Question], *answers: int) -> list[float]:
    yes = dict(zip(questions, map(bool, answers), strict=True))
    return list(dependent_scores(questions, yes).values())


def test_a_child_is_0_when_a_parent_is():
    assert score(chain((0,), (1,)), 1, 1) == [1, 1]
    assert score(chain((0,), (1,)), 0, 1) == [0, 0]
    assert score(chain((0,), (0,), (1, 2)), 1, 0, 1) == [1, 0, 0]
    assert score(chain((0,), (1,), (2,)), 0, 1, 1) == [0, 0, 0], "grandchildren too"
    assert score(chain((0,), (3,), (1,)), 0, 1, 1) == [0, 1, 0], "a parent that stands below"


def test_an_unknown_parent_cannot_be_scored_unless_another_is_0():
    with pytest.raises(UnknownParent):
        score(chain((0,), (1, 9)), 1, 1)
    assert score(chain((0,), (1, 9)), 0, 1) == [0, 0]


def test_a_prompt_is_the_mean_over_questions_then_pictures():
    questions = chain((0,), (1,), (0,))
    answers = [{1: True, 2: True, 3: False}, {1: False, 2: True, 3: True}]
    assert prompt_score(questions, answers) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_scores_and_the_published_mistakes():
    one = DPGPrompt("one", "x", chain((0,), (1,)))
    two = DPGPrompt("two", "y", chain((0,), (0,)))
    yes, no, half = {1: True, 2: True}, {1: False, 2: False}, {1: True, 2: False}
    answers = [[yes, yes], [half, no]]
    scores = dpg_scores([one, two], answers)
    assert scores.prompts == {"one": 1, "two": 0.25} and scores.mean == 0.625
    assert scores.categories == {"entity - whole": 5 / 8, "entity": 5 / 8}
    published = dpg_scores([one, two], answers, as_published=True)
    assert published.prompts == {"two": 0.25} and published.left_out == ("one",)
    assert published.categories == {"entity - whole": 0, "entity": 0}, "the last picture alone"
    independent = DPGPrompt("one", "x", chain((0,), (0,)))
    published = dpg_scores([independent, two], [[half, half], [half, no]], as_published=True)
    assert published.prompts == {"one": 0, "two": 0.25}, "without the first question"
    only = dpg_scores([DPGPrompt("one", "x", chain((0,)))], [[{1: True}]], as_published=True)
    assert only.prompts == {} and only.left_out == ("one",) and np.isnan(only.mean)


def test_the_file_is_read(tmp_path: Path):
    prompts, _ = read_questions(table(tmp_path / "q.csv"))
    assert [prompt.item for prompt in prompts] == ["a", "b", "c"]
    assert prompts[1].text == "a dog, and a cat"
    question = prompts[1].questions[3]
    assert question.parents == (1, 2) and question.category == "relation - spatial"
    assert question.broad_category == "relation"
    assert prompts[1].questions[4].broad_category == "global"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a table without questions"),
        ([("a", "x", "one", "0", "t (x)", "Is?")], "line 2.* with the numbers 'one', '0'"),
        ([("a", "x", 1, "0;1", "t (x)", "Is?")], "with the numbers '1', '0;1'; valid: such as"),
        ([("a", "x", 1, "", "t (x)", "Is?")], "a line without dependency"),
        ([("a", "x", 1, "0", "t (x)")], "a line without question_natural_language"),
        ([*ROWS, ROWS[0]], "line 9' is a second question 1 of 'a'"),
        ([*ROWS, ("a", "other", 3, "0", "t (x)", "Is?")], "another prompt of the item 'a'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, rows, message: str):
    with pytest.raises(UsageError, match=f"^dpg_questions: .*{message}"):
        read_questions(table(tmp_path / "q.csv", rows))


def test_a_missing_file_and_a_missing_column_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"missing; valid: DPG-Bench's dpg_bench\.csv"):
        read_questions(tmp_path / "no.csv")
    with pytest.raises(UsageError, match="without the column tuple, question_natural_language"):
        read_questions(table(tmp_path / "q.csv", [], COLUMNS[:4]))
    (tmp_path / "q.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_questions(tmp_path / "q.csv")


def test_the_evaluator(tmp_path: Path):
    """Seeds 0 and 1 get yes to everything, seeds 2 and 3 no to dogs and houses."""
    questions = table(tmp_path / "q.csv")
    model = PaintingModel([prompt.text for prompt in read_questions(questions)[0]])
    file = tmp_path / "answers.py"
    file.write_text(
        "def answer(image, question):\n"
        "    no = 'dog' in question or 'house?' in question\n"
        "    return not no or int(image[0, 0, 2]) < 2\n"
    )
    answer = load_answerer(f"{file}:answer")
    context = EvaluationContext(model, answer=answer, dpg_questions=questions)
    check_dpg(context)
    assert model.painted == []
    values = measure(EVALUATORS["dpg"], context)
    assert len(model.painted) == 12
    group = "dpg_3_prompts"
    assert values[f"{group}/score/mean"] == pytest.approx(((1 + 0) / 2 + (1 + 0.25) / 2 + 1) / 3)
    assert values[f"{group}/score/entity"] == values[f"{group}/score/entity - whole"] == 12 / 16
    assert values[f"{group}/score/prompts"] == 3 and values[f"{group}/score/left_out"] == 0
    assert values[f"{group}/as_published/mean"] == pytest.approx((0.625 + 1) / 2)
    assert values[f"{group}/as_published/entity"] == pytest.approx(2 / 3)
    assert values[f"{group}/as_published/left_out"] == 1
    words = EVALUATORS["dpg"].words(values)
    assert words == "DPG-Bench 0.708 (as published: 0.812, 3 prompts)"


def test_items_with_the_same_prompt_have_their_own_questions(tmp_path: Path):
    rows = [
        ("a", "a house", 5, "0", "entity (house)", "Is there a house?"),
        ("b", "a house", 1, "0", "entity (roof)", "Is there a roof?"),
        ("b", "a house", 2, "0", "entity (house)", "Is there a house?"),
    ]
    asked: list[str] = []

    def answer(image: np.ndarray, question: str) -> bool:
        asked.append(question)
        return "house" in question

    questions = table(tmp_path / "q.csv", rows)
    model = PaintingModel(["a house"])
    context = EvaluationContext(model, answer=answer, dpg_questions=questions)
    values = measure(EVALUATORS["dpg"], context)
    assert values["dpg_2_prompts/score/mean"] == pytest.approx((1 + 0.5) / 2)
    assert len(asked) == 2 * 8, "each question once for each picture"


def test_prompts_that_cannot_be_scored_are_counted(tmp_path: Path):
    """One prompt with a parent that does not exist, and no other."""
    questions = table(tmp_path / "q.csv", [("a", "x", 1, "7", "entity (x)", "Is there x?")])
    answer = lambda image, question: True  # noqa: E731
    context = EvaluationContext(PaintingModel(["x"]), answer=answer, dpg_questions=questions)
    values = measure(EVALUATORS["dpg"], context)
    assert values == {
        "dpg_1_prompts/score/prompts": 0,
        "dpg_1_prompts/score/left_out": 1,
        "dpg_1_prompts/as_published/prompts": 0,
        "dpg_1_prompts/as_published/left_out": 1,
    }
    assert EVALUATORS["dpg"].words(values) == "DPG-Bench nan (as published: nan, 0 prompts)"


def test_what_is_missing_or_wrong_is_said_before_anything_is_drawn(tmp_path: Path):
    questions = table(tmp_path / "q.csv")
    model = PaintingModel([])
    for fields, message in (
        ({}, "^answer: none is missing, and the evaluator dpg needs it"),
        ({"answer": lambda image, question: True}, "^dpg_questions: none is missing"),
    ):
        context = EvaluationContext(model, **fields)
        assert measure(EVALUATORS["dpg"], context) == {}
        with pytest.raises(UsageError, match=message):
            check_dpg(context)
    with pytest.raises(
        UserFunctionError, match=r"returned 'yes' for 'Is there a house.'; valid: Tr"
    ):
        wrong = lambda image, question: "yes"  # noqa: E731
        check_dpg(EvaluationContext(model, answer=wrong, dpg_questions=questions))
    assert model.painted == []
