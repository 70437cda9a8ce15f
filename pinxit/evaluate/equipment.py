"""Loads the networks and functions that the chosen evaluators need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.evaluate.dpg.evaluator import load_answerer
from pinxit.evaluate.geneval.evaluator import load_detector
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.selection import (
    BUILT_IN,
    COMPOSITION_PROMPTS,
    OF_ROWS,
    READERS,
    VARIETY_PROMPTS,
    Request,
    Selection,
)

USES_NETWORKS = {*READERS["inception"], *READERS["clip"]}


def check_paths(request: Request) -> None:
    """Raises `UsageError` for a file that is missing, before anything is loaded."""
    for name in ("inception", "reference_statistics", "dpg_questions"):
        value = getattr(request, name)
        if value is not None and not Path(value).is_file():
            problem = "not a file" if Path(value).exists() else "missing"
            raise UsageError(name, value, problem=problem, valid="a file")


def equipment(selection: Selection) -> dict[str, Any]:
    """Returns the fields of an `EvaluationContext` that a selection determines."""
    request, names = selection.request, set(selection.names)
    pictures = bool(names - {*OF_ROWS})
    fields: dict[str, Any] = {
        "prompts": selection.prompts,
        "judge": load_judge() if selection.scenes and pictures else None,
    }
    asked = names - BUILT_IN and (request.inception or request.clip)  # for a user's evaluator
    if (names & USES_NETWORKS or asked) and (selection.prompts or "variety" in names):
        fields |= _networks(request)
    if "distances" in names:
        path = request.reference_statistics
        fields["reference_images"] = request.reference_images
        fields["reference_statistics"] = None if path is None else Path(path)
    if "composition" in names:
        fields["composition_prompts"] = request.composition_prompts or COMPOSITION_PROMPTS
    if "variety" in names:
        fields["variety_prompts"] = request.variety_prompts or VARIETY_PROMPTS
    if "geneval" in names:
        fields["detect"] = load_detector(str(request.detector))
        fields["geneval_prompts"] = request.geneval_prompts
    if "dpg" in names:
        fields["answer"] = load_answerer(str(request.answer), option="answer")
        fields["dpg_questions"] = Path(str(request.dpg_questions))
    return fields


def _networks(request: Request) -> dict[str, Any]:
    """Returns the networks of images, and the extractor of CLIP scores."""
    from pinxit.evaluate.networks import feature_networks

    networks, clip = feature_networks(inception=request.inception, clip=request.clip)
    return {"networks": tuple(networks), "clip": clip}
