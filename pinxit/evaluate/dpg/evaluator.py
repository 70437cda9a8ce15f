"""DPG-Bench as an evaluator: draws the prompts of a file, and lets the user's function answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.dpg.questions import OPTION as QUESTIONS
from pinxit.evaluate.dpg.questions import DPGPrompt, read_questions
from pinxit.evaluate.dpg.scoring import Answers, DPGScores, dpg_scores
from pinxit.evaluate.extractors.base import Extractor, Picture
from pinxit.evaluate.picture_sets import DrawnPictures, PictureSet
from pinxit.evaluate.user_function import (
    UserFunction,
    as_user_function,
    load_function,
    one_by_one_rows,
)

ANSWERER = "answer"
"""The name of the option that names the user's file, for messages."""
PARAMETERS = ("image", "question")
"""The arguments of the user's function."""
SEEDS = 4
"""Number of pictures of each prompt, from the seeds 0, 1, 2 and 3."""
PUBLISHED_PROMPTS = 1065
"""Number of the benchmark's prompts."""


class DPGAnswers:
    """The answers to the questions about each picture: 1 for yes, 0 for no and for no question."""

    name = "dpg"

    def __init__(self, answer: Any, prompts: Sequence[DPGPrompt], sha256: str) -> None:
        """Asks the user's function. `sha256` is the hash of the file of questions."""
        self._answer: UserFunction = as_user_function(
            answer, option=ANSWERER, parameters=PARAMETERS
        )
        self._sha256 = sha256
        self._questions: dict[str, list[str]] = {}
        for prompt in prompts:
            questions = self._questions.setdefault(prompt.text, [])
            texts = (question.text for question in prompt.questions.values())
            questions += [text for text in dict.fromkeys(texts) if text not in questions]

    @property
    def width(self) -> int:
        """The largest number of questions of a prompt."""
        return max(len(questions) for questions in self._questions.values())

    def about(self) -> Mapping[str, Any]:
        """Returns the hashes of the user's file and of the file of questions, as JSON."""
        return {"name": self.name, "questions": self._sha256, "answer": dict(self._answer.about())}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the answers. Raises `StoppedAtPicture` where the user's function fails."""
        return one_by_one_rows(self._row, pictures, prompts, width=self.width)

    def answers(self, prompt: DPGPrompt, row: Float[np.ndarray, " d"]) -> Answers:
        """Returns a row as the answers to a prompt's questions."""
        texts = self._questions[prompt.text]
        return {n: bool(row[texts.index(q.text)]) for n, q in prompt.questions.items()}

    def _row(self, picture: Picture, text: str) -> Float[np.ndarray, " d"]:
        row = np.zeros(self.width, np.float32)
        for column, question in enumerate(self._questions[text]):
            row[column] = self.ask(picture, question)
        return row

    def ask(self, picture: Picture, question: str) -> bool:
        """Returns the answer to a question. Raises `UserFunctionError` if it is not a bool."""
        answer = self._answer(picture, question)
        if not isinstance(answer, bool | np.bool_):
            problem = f"returned {answer!r} for {question!r}"
            raise self._answer.wrong(problem, valid="True for yes, False for anything else")
        return bool(answer)


def load_answerer(text: str, *, option: str = ANSWERER) -> UserFunction:
    """Returns the function that ``FILE.py:NAME`` names, for `EvaluationContext.answer`.

    Raises `UsageError` if the file or the function cannot be used.
    """
    return load_function(text, option=option, parameters=PARAMETERS)


def check_dpg(context: EvaluationContext) -> None:
    """Raises `UsageError` unless DPG-Bench can be measured; draws nothing.

    The user's function is called once, with a grey picture and the first question.
    """
    if context.answer is None:
        problem = "missing, and the evaluator dpg needs it"
        valid = "FILE.py:NAME, a function that answers questions (docs/geneval.md)"
        raise UsageError(ANSWERER, None, problem=problem, valid=valid)
    if context.dpg_questions is None:
        problem = "missing, and the evaluator dpg needs it"
        raise UsageError(QUESTIONS, None, problem=problem, valid="the path of dpg_bench.csv")
    prompts, sha256 = read_questions(context.dpg_questions)
    extractor = DPGAnswers(context.answer, prompts, sha256)
    size = context.model.image_size
    first = next(iter(prompts[0].questions.values()))
    extractor.ask(np.full((size, size, 3), 128, np.uint8), first.text)


def dpg(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``dpg/score/mean`` and ``dpg/score/{category}``, then ``dpg/as_published/...``.

    The first column has all questions and all pictures. The second one repeats two mistakes of the
    published script (see `dpg_scores`), so it can be compared with published figures. All are from
    0 to 1. The rows ``prompts`` and ``left_out`` count the prompts that the mean is of, and those
    that cannot be scored. Except for the benchmark's 1065 prompts, the group is called
    ``dpg_N_prompts``. Yields nothing without the user's function and the file of questions.
    """
    if context.answer is None or context.dpg_questions is None:
        return
    prompts, need = _need(context)
    rows = np.concatenate(list(context.observations.features(*need).blocks()))
    answers = [
        [need[1].answers(prompt, row) for row in rows[SEEDS * number : SEEDS * (number + 1)]]
        for number, prompt in enumerate(prompts)
    ]
    whole = len(prompts) == PUBLISHED_PROMPTS
    group = "dpg" if whole else f"dpg_{len(prompts)}_prompts"
    yield from _columns(f"{group}/score", dpg_scores(prompts, answers))
    yield from _columns(f"{group}/as_published", dpg_scores(prompts, answers, as_published=True))


def dpg_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the answers that `dpg` reads."""
    if context.answer is not None and context.dpg_questions is not None:
        yield _need(context)[1]


def dpg_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the score, and the score by the published script's arithmetic."""
    group = next(iter(values)).partition("/")[0]
    mean, published, count = (
        values.get(f"{group}/{rest}", math.nan)
        for rest in ("score/mean", "as_published/mean", "score/prompts")
    )
    return f"DPG-Bench {mean:.3f} (as published: {published:.3f}, {count:.0f} prompts)"


def _need(
    context: EvaluationContext,
) -> tuple[list[DPGPrompt], tuple[DrawnPictures, DPGAnswers]]:
    """Returns the prompts, and the pictures and answers that they need."""
    assert context.dpg_questions is not None
    prompts, sha256 = read_questions(context.dpg_questions)
    pictures = context.drawing(
        (prompt.text for prompt in prompts for _ in range(SEEDS)),
        tuple(range(SEEDS)) * len(prompts),
        title="drawing DPG-Bench's prompts",
    )
    return prompts, (pictures, DPGAnswers(context.answer, prompts, sha256))


def _columns(prefix: str, scores: DPGScores) -> Iterator[tuple[str, float]]:
    """Yields the mean, the categories and the numbers of prompts, with the prefix before them."""
    if scores.prompts:
        yield f"{prefix}/mean", scores.mean
    for category, share in scores.categories.items():
        yield f"{prefix}/{category}", share
    yield f"{prefix}/prompts", float(len(scores.prompts))
    yield f"{prefix}/left_out", float(len(scores.left_out))
