"""Chooses what an evaluation measures, and refuses evaluators and options that do not fit it.

Without names, all evaluators run that read the pictures of the held-out prompts or the held-out
rows. Those that draw pictures of their own (`BY_NAME`) take minutes more, so they run only if
their name or one of their options is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pinxit.config import UsageError, choice, few, positive
from pinxit.evaluate.evaluators import EVALUATORS

OF_PICTURES = ("prompt_accuracy", "distances", "clip_score", "details")
"""Evaluators of the pictures that are drawn for the held-out prompts."""
OF_ROWS = ("validation_loss", "caption_effect")
"""Evaluators of held-out rows."""
OF_SCENES = ("prompt_accuracy", "details", "composition", "variety")
"""Evaluators that read the attributes of scenes."""
BY_NAME = {
    "composition": ("composition_prompts",),
    "variety": ("variety_prompts",),
    "geneval": ("detector",),
    "dpg": ("answer", "dpg_questions"),
}
"""Evaluators that draw pictures of their own, with the options that also ask for them."""
READERS = {
    "inception": ("distances", "variety"),
    "clip": ("distances", "clip_score", "variety"),
    "reference_images": ("distances",),
    "reference_statistics": ("distances",),
    "composition_prompts": ("composition",),
    "variety_prompts": ("variety",),
    "detector": ("geneval",),
    "geneval_prompts": ("geneval",),
    "answer": ("dpg",),
    "dpg_questions": ("dpg",),
}
"""Options that only some evaluators read, with their readers."""
BUILT_IN = {*OF_PICTURES, *OF_ROWS, *BY_NAME}
COMPOSITION_PROMPTS = 50
"""Number of prompts of each task of composition, if it is measured and no other is given."""
VARIETY_PROMPTS = 16
"""Number of prompts of variety, if it is measured and no other is given."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The figures that an evaluation is asked for; None stands for an option that is not given."""

    evaluators: Sequence[str] = ()
    """Names of evaluators; if empty, the usual ones."""
    prompts: int | None = None
    """Number of held-out prompts to draw."""
    inception: str | None = None
    """File with Inception's weights."""
    clip: str | None = None
    """Directory or repository of a CLIP."""
    reference_images: int | None = None
    """Number of real pictures that distances compare with."""
    reference_statistics: str | None = None
    """File with the statistics of a reference set, instead of its pictures."""
    composition_prompts: int | None = None
    """Number of prompts of each task of composition."""
    variety_prompts: int | None = None
    """Number of prompts of variety."""
    detector: str | None = None
    """``FILE.py:NAME`` of an object detector for GenEval."""
    geneval_prompts: int | None = None
    """Number of GenEval's prompts."""
    answer: str | None = None
    """``FILE.py:NAME`` of a function that answers DPG-Bench's questions."""
    dpg_questions: str | None = None
    """DPG-Bench's file of questions."""

    def __post_init__(self) -> None:
        for name in ("prompts", "composition_prompts", "variety_prompts"):
            positive(name, getattr(self, name), minimum=0)
        positive("geneval_prompts", self.geneval_prompts)
        positive("reference_images", self.reference_images, minimum=2)
        for name in self.evaluators:
            choice("evaluators", name, EVALUATORS)
        chosen = self.names
        for option, readers in READERS.items():
            value, others = getattr(self, option), set(chosen) - BUILT_IN
            if value in (None, 0) or others or set(readers) & set(chosen):
                continue
            known = [name for name in readers if name in EVALUATORS]
            problem = (
                f"without effect on {few(chosen)}: it is read by {', '.join(known or readers)}"
            )
            raise UsageError(option, value, problem=problem, valid="leave it out")

    @classmethod
    def of(cls, source: object, **changes: Any) -> Request:
        """Returns the request in the attributes of these names that an object has."""
        names = [field.name for field in fields(cls) if hasattr(source, field.name)]
        return cls(**{name: getattr(source, name) for name in names} | changes)

    @classmethod
    def reading(cls, source: object, names: Sequence[str]) -> Request:
        """Returns the request for these evaluators, or the usual ones, with those options of an
        object that they read. The number of prompts is not one of them."""
        chosen = {*names} or {*EVALUATORS} - {*BY_NAME}
        unread = {option: None for option, readers in READERS.items() if not {*readers} & chosen}
        return cls.of(source, evaluators=tuple(names), prompts=None, **unread)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the evaluators: those given, or the usual ones, in the order of
        `EVALUATORS`, and those that an option asks for."""
        if self.evaluators:
            return tuple(dict.fromkeys(self.evaluators))
        return tuple(
            name
            for name in EVALUATORS
            if any(getattr(self, option) for option in BY_NAME.get(name, ())) or name not in BY_NAME
        )

    def with_defaults(self, source: object) -> Request:
        """Returns the request with the networks and counts of `source`, such as a run's settings,
        for those that are not given."""
        usual = {
            name: getattr(source, name, None)
            for name in ("inception", "clip", "reference_images", "reference_statistics")
            if getattr(self, name) is None and set(READERS[name]) & set(self.names)
        }
        for name in ("composition_prompts", "variety_prompts"):
            if READERS[name][0] in self.names and getattr(self, name) is None:
                usual[name] = getattr(source, name, None)
        return replace(self, **usual)


@dataclass(frozen=True)
class Selection:
    """The evaluators that run, and the number of prompts to draw."""

    request: Request
    names: tuple[str, ...]
    """The names of the evaluators that have something to measure."""
    prompts: int
    """Number of held-out prompts to draw."""
    scenes: bool
    """Whether the data are scenes, whose attributes the judge reads."""
    left_out: Mapping[str, str]
    """The other usual evaluators, each with the reason why it does not run."""

    @property
    def draws(self) -> bool:
        """Whether evaluators read pictures."""
        return bool({*self.names} & {*OF_PICTURES, *BY_NAME})

    def __str__(self) -> str:
        """Returns a line that lists what is not measured, or an empty string."""
        parts = [f"{name} ({reason})" for name, reason in self.left_out.items()]
        return f"not measured: {', '.join(parts)}" if parts else ""


def select(
    request: Request,
    *,
    dataset: str,
    scenes: bool,
    rows: int,
    prompts: int = 0,
    named: bool = True,
) -> Selection:
    """Returns the evaluators of a request that can run on `rows` held-out rows of a dataset.

    `prompts` is the usual number of held-out prompts. Raises `UsageError` for an evaluator that is
    named but cannot run, unless `named` is false, and for more prompts than there are rows.
    """
    count = _prompts(request, scenes=scenes, rows=rows, usual=prompts)
    names, left_out = [], {}
    for name in request.names:
        reason, option = _obstacle(name, request, dataset, scenes, rows, count)
        if reason and named and name in request.evaluators:
            raise UsageError("evaluators", name, problem=f"not possible {reason}", valid=option)
        if reason:
            left_out[name] = reason
        else:
            names.append(name)
    if not scenes:  # these figures do not exist for other data
        left_out = {name: reason for name, reason in left_out.items() if name not in OF_SCENES}
    return Selection(request, tuple(names), count, scenes, left_out)


def _prompts(request: Request, *, scenes: bool, rows: int, usual: int) -> int:
    """Returns the number of prompts to draw. Other data than scenes are only drawn on request."""
    if scenes:
        return usual if request.prompts is None else request.prompts
    if request.prompts is not None:
        if request.prompts > rows:
            problem = f"more than the {rows} held-out rows whose captions are drawn"
            valid = f"0 to {rows}, or more rows with --images"
            raise UsageError("prompts", request.prompts, problem=problem, valid=valid)
        return request.prompts
    asked = request.inception or request.clip or set(request.evaluators) & {*OF_PICTURES}
    return min(usual, rows) if asked else 0


def _obstacle(
    name: str, request: Request, dataset: str, scenes: bool, rows: int, prompts: int
) -> tuple[str, str]:
    """Returns the reason why an evaluator cannot run, and what to do; empty strings if it can."""
    if name in OF_SCENES and not scenes:
        others = ", ".join(one for one in EVALUATORS if one not in OF_SCENES)
        return f"on {dataset}: only pictures of scenes can be judged", f"{others}, or scenes"
    if name in OF_PICTURES and not prompts:
        return "without pictures", "--prompts above 0"
    if name in OF_ROWS and not rows:
        return "without held-out rows", "--images above 0"
    if name == "clip_score" and not scenes and request.clip is None:
        return "without a CLIP", "--clip"
    missing = [f"--{option}" for option in BY_NAME.get(name, ()) if not getattr(request, option)]
    if name in ("geneval", "dpg") and missing:
        return f"without {' and '.join(missing)}", "see docs/geneval.md"
    if name in BY_NAME and any(getattr(request, option) == 0 for option in BY_NAME[name]):
        return "without pictures", f"--{BY_NAME[name][0]} above 0"
    return "", ""
