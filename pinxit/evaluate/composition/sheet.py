"""Draws one labelled picture with successes and failures of every task, so that people can look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pinxit.config import UsageError
from pinxit.data.scenes.attributes import PLACES
from pinxit.evaluate.composition.evaluator import measured, read_answers, verdicts
from pinxit.evaluate.composition.pictures import SEEDS, drawn_pictures, prompts_of
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.picture_sets import DrawnPictures
from pinxit.files import whole
from pinxit.labelled_sheet import LabelledSheet, Panel

CELL, EDGE = 128, 5
"""The side of a picture and the width of its frame, in pixels."""
RIGHT, WRONG = "#2166ac", "#e08214"
"""The colours of the frames, which colour-blind people can tell apart."""
ROWS = 3
"""Number of prompts of a task."""


def composition_sheet(context: EvaluationContext, path: str | Path) -> None:
    """Writes a PNG with prompts of each task and their four pictures, framed by their verdict.

    The prompts are those with the fewest right pictures, and last one with the most. Their pictures
    are drawn again, because none are kept. Raises `UsageError` without a judge or without prompts.
    """
    if not measured(context):
        raise UsageError(
            "composition_prompts",
            context.composition_prompts,
            problem="nothing to draw: the sheet needs prompts and the judge of scenes",
        )
    prompts = prompts_of(context.composition_prompts)
    drawn = drawn_pictures(context, prompts)
    answers = read_answers(context, drawn)
    panels, pictures = [], []
    start = 0
    for task, right in verdicts(prompts, answers).items():
        chosen = shown_prompts(right)
        numbers = [range((start + i) * SEEDS, (start + i + 1) * SEEDS) for i in chosen]
        labels = [
            _label(prompts[start + i].text, right[i], [answers[n] for n in of_prompt])
            for i, of_prompt in zip(chosen, numbers, strict=True)
        ]
        side = CELL + 2 * EDGE
        title = f"{task}: {int(right.sum())} of {right.size} right"
        columns = [f"{n + 1}" for n in range(SEEDS)]
        sizes = [[(side, side)] * SEEDS for _ in chosen]
        panels.append(Panel(columns=columns, rows=labels, sizes=sizes, title=title))
        pictures.append(
            [_row(drawn, row, right[i]) for i, row in zip(chosen, numbers, strict=True)]
        )
        start += len(right)
    sheet = LabelledSheet(panels, title="Composition of held-out prompts", lines=LINES)
    with whole(Path(path)) as temporary:
        sheet.draw(pictures).save(temporary, format="PNG", optimize=True)


LINES = (
    "Blue frame: right by the rule of the task. Orange frame: wrong, and the label says what the "
    "judge reads there (in the first wrong picture). Each task shows the prompts with the most "
    "failures, and last a prompt with the fewest. Each of the four pictures has its own seed.",
)


def shown_prompts(right: np.ndarray) -> list[int]:
    """Returns the numbers of the prompts with the fewest right pictures, and last of the best."""
    order = np.argsort(right.mean(axis=1), kind="stable")
    return [int(i) for i in (*order[: min(ROWS, len(order)) - 1], order[-1])]


def _row(drawn: DrawnPictures, numbers: range, right: np.ndarray) -> list[Image.Image]:
    images = drawn.pictures(numbers)
    return [_framed(image, bool(good)) for image, good in zip(images, right, strict=True)]


def _framed(image: np.ndarray, right: bool) -> Image.Image:
    whole_multiple = CELL % image.shape[0] == 0
    scaling = Image.Resampling.NEAREST if whole_multiple else Image.Resampling.LANCZOS
    large = Image.fromarray(image).resize((CELL, CELL), scaling)
    return ImageOps.expand(large, EDGE, fill=RIGHT if right else WRONG)


def _label(text: str, right: np.ndarray, answers: Sequence[Mapping[str, str]]) -> str:
    """Returns the prompt, and what the judge reads in its first wrong picture."""
    wrong = [answer for answer, good in zip(answers, right, strict=True) if not good]
    return f"{text} (judge: {objects_in_words(wrong[0])})" if wrong else text


def objects_in_words(answer: Mapping[str, str]) -> str:
    """Returns the objects that the judge reads, as "red house left, blue tree right"."""
    objects = [
        f"{answer[f'{place}.colour']} {answer[f'{place}.object']} {place}"
        for place in PLACES
        if answer[f"{place}.object"] != "none"
    ]
    return ", ".join(objects) or "no object"
