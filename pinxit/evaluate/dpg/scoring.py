"""DPG-Bench's arithmetic on given answers, as its ``dpg_bench/compute_dpg_bench.py`` does it.

The script has two mistakes (issues 60 and 61 of https://github.com/TencentQQGYLab/ELLA): it takes
the scores of categories from the last picture of each prompt alone, and it skips the file's first
question, because of which the first prompt can usually not be scored and is left out. Both
ways are here, with the mistakes for comparison with published figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pinxit.evaluate.dpg.questions import DPGPrompt, Question

Answers = Mapping[int, bool]
"""The answer to each question about one picture, by the question's number; True is yes."""


class UnknownParent(KeyError):
    """A question depends on another one that its prompt does not have."""


def dependent_scores(questions: Mapping[int, Question], answers: Answers) -> dict[int, float]:
    """Returns 1 for each question with the answer yes, 0 for no and below a parent with 0.

    Questions are taken in the file's order, so a parent's 0 reaches its grandchildren if the parent
    stands before its children. Raises `UnknownParent` where the script fails: for a parent that is
    not a question of the prompt, unless one before it already has 0.
    """
    scores = {number: float(answers[number]) for number in questions}
    for number, question in questions.items():
        for parent in question.parents:
            if parent == 0:
                continue
            if parent not in scores:
                raise UnknownParent(parent)
            if scores[parent] == 0:
                scores[number] = 0.0
                break
    return scores


def prompt_score(questions: Mapping[int, Question], pictures: Sequence[Answers]) -> float:
    """Returns the mean over a prompt's questions, then over its pictures.

    Raises `UnknownParent` if the prompt cannot be scored.
    """
    each = [dependent_scores(questions, answers) for answers in pictures]
    return sum(sum(scores.values()) / len(scores) for scores in each) / len(each)


@dataclass(frozen=True)
class DPGScores:
    """The scores of a benchmark, from 0 to 1."""

    prompts: Mapping[str, float]
    """The score of each prompt that can be scored, by item."""
    left_out: tuple[str, ...]
    """The items of the prompts that cannot be scored, for a parent that does not exist."""
    categories: Mapping[str, float]
    """The share of yes by broad and by detailed category, without the rule of dependencies."""

    @property
    def mean(self) -> float:
        """The mean over the prompts, or NaN if none can be scored."""
        return sum(self.prompts.values()) / len(self.prompts) if self.prompts else float("nan")


def dpg_scores(
    prompts: Sequence[DPGPrompt],
    answers: Sequence[Sequence[Answers]],
    *,
    as_published: bool = False,
) -> DPGScores:
    """Returns the scores of all prompts.

    ``answers[i]`` are those about the pictures of prompt i. With `as_published` the script's two
    mistakes are repeated.
    """
    scores: dict[str, float] = {}
    left_out: list[str] = []
    yes: dict[str, list[bool]] = defaultdict(list)
    for position, (prompt, pictures) in enumerate(zip(prompts, answers, strict=True)):
        questions = dict(prompt.questions)
        if as_published and position == 0:
            del questions[next(iter(questions))]
        try:
            if not questions:
                raise UnknownParent(prompt.item)
            scores[prompt.item] = prompt_score(questions, pictures)
        except UnknownParent:
            left_out.append(prompt.item)
            continue
        for picture in pictures[-1:] if as_published else pictures:
            for number, question in questions.items():
                yes[question.category].append(picture[number])
    return DPGScores(scores, tuple(left_out), _by_category(yes))


def _by_category(yes: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """Returns the shares of yes by broad category, then by detailed category."""
    broad: dict[str, list[bool]] = defaultdict(list)
    for category in sorted(yes):
        broad[category.partition("-")[0].strip()] += yes[category]
    detailed = {category: yes[category] for category in sorted(yes)}
    return {name: sum(each) / len(each) for name, each in (detailed | broad).items()}
