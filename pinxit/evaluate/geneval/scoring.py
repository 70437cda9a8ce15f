"""GenEval's rules: whether the objects that a detector sees in a picture meet a prompt.

They are those of ``evaluation/evaluate_images.py`` in https://github.com/djghosh13/geneval, read in
its code: objects below a score are ignored, the most confident ones are looked at first, and
colours and positions are those of the ``count`` most confident objects alone. Numbers are float32,
as there, so that an object on a threshold is on the same side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from pinxit.evaluate.geneval.classes import COLOURS
from pinxit.evaluate.geneval.detection import Detection
from pinxit.evaluate.geneval.prompts import GenEvalPrompt, Requirement

Kind = Literal["too few", "wrong colour", "wrong position", "too many"]
KINDS: tuple[str, ...] = get_args(Kind)
"""The reasons for which a picture is wrong."""


@dataclass(frozen=True)
class Rules:
    """The thresholds that decide which objects count and when a relation holds."""

    threshold: float = 0.3
    """Objects with a score above it count."""
    counting_threshold: float = 0.9
    """The same for the prompts of the task counting."""
    max_objects: int = 16
    """Number of the most confident objects of a class that are looked at."""
    max_overlap: float = 1.0
    """An object is dropped if its intersection over union with a more confident one of its class
    is at least this; with 1 none is dropped."""
    position_threshold: float = 0.1
    """Fraction of the sum of two objects' sizes that their centres must be apart."""


GENEVAL_RULES = Rules()
"""The published thresholds."""


@dataclass(frozen=True)
class Reason:
    """A requirement that a picture does not meet."""

    kind: Kind
    """The kind of the mistake, one of `KINDS`."""
    text: str
    """A sentence that says what was expected and what was seen."""


def geneval_reasons(
    prompt: GenEvalPrompt,
    detections: Sequence[Detection],
    *,
    colour: Callable[[Detection], str],
    rules: Rules = GENEVAL_RULES,
) -> list[Reason]:
    """Returns the reasons for which a picture is wrong; there are none if it is correct.

    `colour` gives an object's colour; it is called for no others than those that the prompt's
    colours depend on.
    """
    objects = counted_objects(prompt.task, detections, rules)
    reasons: list[Reason] = []
    met: list[list[Detection] | None] = []
    for requirement in prompt.include:
        chosen = objects.get(requirement.name, [])[: requirement.count]
        problem = _missing(requirement, chosen) or _colour_problem(requirement, chosen, colour)
        if problem is None and requirement.relation is not None:
            problem = _position_problem(requirement, chosen, met[0], rules)
        met.append(chosen if problem is None else None)
        reasons += [] if problem is None else [problem]
    for limit in prompt.exclude:
        if (seen := len(objects.get(limit.name, []))) >= limit.count:
            text = f"{limit.name}: fewer than {limit.count} were expected, {seen} seen"
            reasons.append(Reason("too many", text))
    return reasons


def counted_objects(
    task: str, detections: Sequence[Detection], rules: Rules = GENEVAL_RULES
) -> dict[str, list[Detection]]:
    """Returns the objects that count in a task, by class, the most confident first."""
    threshold = rules.counting_threshold if task == "counting" else rules.threshold
    classes: dict[str, list[Detection]] = {}
    for detection in detections:
        classes.setdefault(detection.name, []).append(detection)
    result: dict[str, list[Detection]] = {}
    for name, members in classes.items():
        scores = np.array([member.score for member in members], np.float32)
        order = np.argsort(scores)[::-1]
        order = order[scores[order] > threshold][: rules.max_objects]
        if len(order):
            result[name] = _apart([members[number] for number in order], rules.max_overlap)
    return result


def _apart(ranked: Sequence[Detection], max_overlap: float) -> list[Detection]:
    """Returns the objects that do not overlap a more confident one too much."""
    if max_overlap == 1:
        return list(ranked)
    result: list[Detection] = []
    for detection in ranked:
        if all(overlap(other, detection) < max_overlap for other in result):
            result.append(detection)
    return result


def overlap(a: Detection, b: Detection) -> float:
    """Returns the intersection over union of two boxes, whose edges belong to them."""
    boxes = _boxes(a, b)
    common = np.concatenate([boxes[:, :2].max(axis=0), boxes[:, 2:].min(axis=0)])
    first, second, both = (_area(box) for box in (*boxes, common))
    union = first + second - both
    return float(both / union) if union else 0.0


def relations(a: Detection, b: Detection, rules: Rules = GENEVAL_RULES) -> set[str]:
    """Returns the relations that hold from a to b: none, one or two of `RELATIONS`.

    The centres' distance is shortened on each axis by a part of the two sizes. What remains is
    divided by the full distance, and a relation holds if it is above one half in its direction.
    """
    corners = _boxes(a, b).reshape(2, 2, 2)
    offset = np.subtract(*corners.mean(axis=1))
    sizes = np.abs(corners[:, 1] - corners[:, 0]).sum(axis=0)
    remaining = np.maximum(np.abs(offset) - rules.position_threshold * sizes, 0) * np.sign(offset)
    if (np.abs(remaining) < 1e-3).all():
        return set()
    x, y = remaining / np.linalg.norm(offset)
    tests = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {name for name, size in tests.items() if size > 0.5}


def _missing(requirement: Requirement, chosen: Sequence[Detection]) -> Reason | None:
    """Returns the reason if there are fewer objects than required."""
    if len(chosen) >= requirement.count:
        return None
    count = requirement.count
    text = f"{requirement.name}: at least {count} expected, {len(chosen)} seen"
    return Reason("too few", text)


def _colour_problem(
    requirement: Requirement, chosen: Sequence[Detection], colour: Callable[[Detection], str]
) -> Reason | None:
    """Returns the reason if fewer of the chosen objects have the colour than required."""
    if requirement.colour is None:
        return None
    colours = [colour(detection) for detection in chosen]
    if colours.count(requirement.colour) >= requirement.count:
        return None
    seen = ", ".join(f"{colours.count(c)} {c}" for c in COLOURS if c in colours)
    text = f"{requirement.name}: {requirement.count} {requirement.colour} expected, {seen} seen"
    return Reason("wrong colour", text)


def _position_problem(
    requirement: Requirement,
    chosen: Sequence[Detection],
    targets: Sequence[Detection] | None,
    rules: Rules,
) -> Reason | None:
    """Returns the reason unless each chosen object has the relation to each target."""
    name, relation = requirement.name, requirement.relation
    if targets is None:
        return Reason("wrong position", f"{name}: nothing seen that it can be {relation}")
    for detection in chosen:
        for target in targets:
            true = relations(detection, target, rules)
            if relation not in true:
                seen = " and ".join(sorted(true)) or "no relation"
                text = f"{name}: {relation} the {target.name} expected, {seen} seen"
                return Reason("wrong position", text)
    return None


def _boxes(*detections: Detection) -> Float[np.ndarray, "n 4"]:
    return np.array([detection.box for detection in detections], np.float32)


def _area(box: Float[np.ndarray, " edges"]) -> np.float32:
    width, height = np.maximum(box[2:] - box[:2] + 1, 0)
    return width * height
