"""Defines the argument of every evaluator: the model, held-out rows, and the amounts to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pinxit.arrays import Example, Objective
from pinxit.config import positive
from pinxit.evaluate.judge import Judge
from pinxit.flow.objective import FlowMatching
from pinxit.pipeline import TextToImage


@runtime_checkable
class Examples(Protocol):
    """A sequence of examples, addressed by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True)
class EvaluationContext:
    """A model and what it is evaluated on."""

    model: TextToImage
    rows: Examples | Sequence[Example] = ()
    """Held-out rows; none where there are none or they are not wanted."""
    objective: Objective = field(default_factory=FlowMatching)
    """The loss that the model was trained with."""
    batch_size: int = 32
    """Number of pictures or rows that are computed together."""
    prompts: int = 0
    """Held-out prompts to draw; 0 for none."""
    judge: Judge | None = None
    """Reads the attributes of scenes; None for a model that was trained on other data."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings that differ from the model's own, for `TextToImage.generate`."""
    progress: Callable[[int, int], Any] = lambda done, total: None
    """Called with (pictures drawn, pictures in all); raises to stop."""

    def __post_init__(self) -> None:
        positive("batch_size", self.batch_size)
        positive("prompts", self.prompts, minimum=0)
