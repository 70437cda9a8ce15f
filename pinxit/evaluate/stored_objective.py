"""Finds the training objective of a stored model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pinxit.arrays import Objective
from pinxit.config import from_kind, kinds_of, one_of
from pinxit.extensions import explained
from pinxit.flow.objective import OBJECTIVES, FlowMatching
from pinxit.pipeline import TextToImage


@dataclass(frozen=True)
class _Stored:
    objective: Any = field(
        default_factory=FlowMatching,
        metadata=one_of(OBJECTIVES, wiring="pinxit.flow.objective.OBJECTIVES"),
    )


def objective_of(model: TextToImage) -> Objective:
    """Returns the loss that a model was trained with, or flow matching if it does not say."""
    stored = model.stored
    with explained(stored.extensions if stored else {}):
        return from_kind(kinds_of(_Stored)["objective"], stored.objective if stored else {})
