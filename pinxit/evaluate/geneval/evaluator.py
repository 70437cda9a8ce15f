"""GenEval as an evaluator: draws the prompts, lets the user's detector look, applies the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError, to_json
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.base import Extractor, Picture
from pinxit.evaluate.geneval.detection import OPTION, Detector
from pinxit.evaluate.geneval.prompts import (
    TASKS,
    GenEvalPrompt,
    balanced,
    geneval_prompts,
)
from pinxit.evaluate.geneval.scoring import GENEVAL_RULES, KINDS, geneval_reasons
from pinxit.evaluate.intervals import interval, mean_interval
from pinxit.evaluate.picture_sets import DrawnPictures, PictureSet
from pinxit.evaluate.user_function import load_function, one_by_one_rows

SEEDS = 4
"""Number of pictures of each prompt, from the seeds 0, 1, 2 and 3."""


class GenEvalVerdicts:
    """Whether each picture meets its prompt: 1 or 0, then the number of the first reason.

    The number is 0 for a correct picture, otherwise 1 + the position in `KINDS`.
    """

    name = "geneval"
    width = 2

    def __init__(self, detector: Detector) -> None:
        """Scores pictures of GenEval's prompts by what the detector sees in them."""
        self._detector = detector
        self._prompts = {prompt.text: prompt for prompt in geneval_prompts()}

    def about(self) -> Mapping[str, Any]:
        """Returns the hash of the user's file and the thresholds, as JSON."""
        detector = self._detector.about()
        return {"name": self.name, "rules": to_json(GENEVAL_RULES), **detector}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the verdicts. Raises `StoppedAtPicture` where the user's function fails."""
        return one_by_one_rows(self._verdict, pictures, prompts, width=self.width)

    def _verdict(self, picture: Picture, text: str) -> Float[np.ndarray, " d"]:
        def colour(detection: Any) -> str:
            return self._detector.colour(picture, detection)

        seen = self._detector(picture)
        reasons = geneval_reasons(self._prompts[text], seen, colour=colour)
        kind = 1 + KINDS.index(reasons[0].kind) if reasons else 0
        return np.array([not reasons, kind], np.float32)


def load_detector(text: str, *, option: str = OPTION) -> Any:
    """Returns the detector that ``FILE.py:NAME`` names, for `EvaluationContext.detect`.

    Raises `UsageError` if the file or the function cannot be used.
    """
    detect = load_function(text, option=option)
    Detector(detect)
    return detect


def check_geneval(context: EvaluationContext) -> None:
    """Raises `UsageError` unless GenEval can be measured; draws nothing.

    The detector is called once, with a grey picture, so that most of its mistakes are seen at once.
    """
    if context.detect is None:
        problem = "missing, and the evaluator geneval needs it"
        valid = "FILE.py:NAME, a function that finds objects (docs/geneval.md)"
        raise UsageError(OPTION, None, problem=problem, valid=valid)
    balanced(context.geneval_prompts)
    size = context.model.image_size
    Detector(context.detect)(np.full((size, size, 3), 128, np.uint8))


def geneval(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``geneval/{accuracy,low,high,pictures}/{task}`` and the mean of the six tasks.

    ``low`` and ``high`` bound an interval of 95 %. The row ``all_pictures`` is the share of correct
    pictures, and ``any_of_4`` that of the prompts with at least one. The group
    ``geneval_mistakes`` has, in a column for each reason, the share of a task's pictures that are
    wrong for this reason first. With fewer prompts, the group is called ``geneval_N_of_553``.
    Yields nothing without a detector.
    """
    if context.detect is None:
        return
    prompts = balanced(context.geneval_prompts)
    rows = context.observations.features(*_need(context, prompts))
    verdicts = np.concatenate(list(rows.blocks())).reshape(len(prompts), SEEDS, 2)
    whole = len(prompts) == len(geneval_prompts())
    group = "geneval" if whole else f"geneval_{len(prompts)}_of_{len(geneval_prompts())}"
    tasks = np.array([prompt.task for prompt in prompts])
    correct = verdicts[..., 0] == 1
    yield from _scores(group, {task: correct[tasks == task] for task in TASKS})
    for kind_number, kind in enumerate(KINDS, 1):
        for task in TASKS:
            if share := float((verdicts[tasks == task][..., 1] == kind_number).mean()):
                yield f"{group}_mistakes/{kind.replace(' ', '_')}/{task}", share


def geneval_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the verdicts that `geneval` reads."""
    if context.detect is not None:
        yield _need(context, balanced(context.geneval_prompts))


def geneval_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the mean accuracy and its interval."""
    (name,) = (name for name in values if name.endswith("/accuracy/mean"))
    group = name.partition("/")[0]
    mean, low, high, count = (
        values[f"{group}/{column}/mean"] for column in ("accuracy", "low", "high", "pictures")
    )
    part = "" if group == "geneval" else f" on a part of the benchmark ({group})"
    return f"GenEval {mean:.3f} ({low:.3f} to {high:.3f}, {count:.0f} pictures){part}"


def _need(
    context: EvaluationContext, prompts: Sequence[GenEvalPrompt]
) -> tuple[DrawnPictures, GenEvalVerdicts]:
    pictures = context.drawing(
        (prompt.text for prompt in prompts for _ in range(SEEDS)),
        tuple(range(SEEDS)) * len(prompts),
        title="drawing GenEval's prompts",
    )
    return pictures, GenEvalVerdicts(Detector(context.detect))


def _scores(group: str, correct: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    """Yields the accuracies of (prompts, pictures) bools by task, with their intervals."""
    every = np.concatenate(list(correct.values()))
    means = {task: float(each.mean()) for task, each in correct.items()}
    bounds = {task: interval(each) for task, each in correct.items()}
    mean = math.fsum(means.values()) / len(means)
    lines = {
        "mean": (mean, *mean_interval(list(means.values()), list(bounds.values())), every.size),
        **{task: (means[task], *bounds[task], each.size) for task, each in correct.items()},
        "all_pictures": (float(every.mean()), *interval(every), every.size),
    }
    for column, number in (("accuracy", 0), ("low", 1), ("high", 2), ("pictures", 3)):
        for name, line in lines.items():
            yield f"{group}/{column}/{name}", float(line[number])
    yield f"{group}/accuracy/any_of_{SEEDS}", float(every.any(axis=1).mean())
