"""Defines the argument of every evaluator: the model, held-out rows, and the amounts to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pinxit.arrays import Example, Objective
from pinxit.config import positive
from pinxit.evaluate.encoded_rows import EncodedRows
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
    """The model, data and settings of an evaluation."""

    model: TextToImage
    rows: Examples | Sequence[Example] = ()
    """Held-out rows; if empty, nothing is measured on rows."""
    objective: Objective = field(default_factory=FlowMatching)
    """The loss that the model was trained with."""
    batch_size: int = 32
    """Number of pictures or rows that are computed together."""
    prompts: int = 0
    """Number of held-out prompts to draw; 0 for none."""
    judge: Judge | None = None
    """The judge that reads the attributes of scenes, or None for a model trained on other data."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings that differ from the model's own, for `TextToImage.generate`."""
    progress: Callable[[int, int], Any] = lambda done, total: None
    """A callback with (pictures drawn, pictures in total); it may raise an exception to stop."""
    check: Callable[[], Any] = lambda: None
    """A callback between batches of rows; it may raise an exception to stop."""
    encoded: EncodedRows | None = None
    """Storage for the encoded rows, if several models of the same encoders are measured on them."""

    def __post_init__(self) -> None:
        positive("batch_size", self.batch_size)
        positive("prompts", self.prompts, minimum=0)
