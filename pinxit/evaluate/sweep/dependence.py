"""What the values of an evaluator depend on: which draw pictures, and the hash of all the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pinxit.config import to_json
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator
from pinxit.evaluate.picture_sets import DrawnPictures, RealPictures, identity
from pinxit.version import __version__

OF_SETS = ("model", "rows", "objective", "judge", "sampling", "networks", "clip", "observations")
OF_SETS += ("check", "encoded", "batch_size")
"""Fields of `EvaluationContext` that the sets of pictures and the extractors describe, or that
values do not depend on."""


def drawn_by(evaluator: Evaluator, context: EvaluationContext) -> list[DrawnPictures]:
    """Returns the sets of drawn pictures that an evaluator reads, each once."""
    sets = {id(pictures): pictures for pictures, _ in evaluator.needs(context)}
    return [pictures for pictures in sets.values() if isinstance(pictures, DrawnPictures)]


def split_by_drawing(
    chosen: Mapping[str, Evaluator], context: EvaluationContext
) -> tuple[dict[str, Evaluator], dict[str, Evaluator]]:
    """Returns the evaluators of drawn pictures, and the others."""
    drawing = {name: each for name, each in chosen.items() if drawn_by(each, context)}
    return drawing, {name: each for name, each in chosen.items() if name not in drawing}


def pictures_of(chosen: Mapping[str, Evaluator], context: EvaluationContext) -> int:
    """Returns the number of pictures that these evaluators let the model draw."""
    sets = {id(each): each for one in chosen.values() for each in drawn_by(one, context)}
    return sum(len(each) for each in sets.values())


def dependence_key(name: str, evaluator: Evaluator, context: EvaluationContext) -> str:
    """Returns the hash of everything that an evaluator's values depend on."""
    needs = [
        [pictures.about(), extractor.about()] for pictures, extractor in evaluator.needs(context)
    ]
    about: dict[str, Any] = {"evaluator": name, "needs": needs, "version": __version__}
    about |= {
        field.name: _described(getattr(context, field.name))
        for field in fields(context)
        if field.name not in OF_SETS
    }
    if not drawn_by(evaluator, context):
        about |= _of_rows(context)
    return identity(about)


def _of_rows(context: EvaluationContext) -> dict[str, Any]:
    """Returns everything that values on rows depend on, as JSON."""
    return {
        "model": context.model.model_hash,
        "network": to_json(context.model.config),
        "rows": RealPictures(context.rows).about(),
        "objective": to_json(context.objective),
    }


def _described(value: Any) -> Any:
    """Returns an amount, a file's content or a function's name, as JSON."""
    if isinstance(value, Path):
        content = value.read_bytes() if value.is_file() else b""
        return [str(value), hashlib.sha256(content).hexdigest()]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return value
