"""The origin of a model, for its card: command, data, figures. The command line collects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Figures that one command measured with the exported parameters."""

    command: tuple[str, ...]
    """The command, one word per entry."""
    rows: str
    """The rows that were measured, in words; empty if they are not recorded."""
    values: Mapping[str, float]
    """The figures, by the evaluators' names."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The known facts about a model's origin. Unknown ones are None or empty, and the card says
    so."""

    command: tuple[str, ...] = ()
    """The training command, one word per entry."""
    machine: str = ""
    """The machine of the training, in words."""
    dataset: str | None = None
    """The name of the dataset."""
    dataset_path: str | None = None
    """Its path or address, as in the settings of the run."""
    hub_dataset: str | None = None
    """The id of the dataset on the Hub, without a revision, if it is there."""
    generated: bool = False
    """Whether the dataset's pictures and captions are made by code."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """The number of the dataset's rows by outcome, such as ok and filtered_side."""
    steps: int | None = None
    images: int | None = None
    """The number of images seen in training, repetitions included."""
    batch_size: int | None = None
    started_from: str | None = None
    """The model that training started from."""
    measurements: tuple[Measurement, ...] = ()
    left_out: tuple[str, ...] = ()
    """Sentences about figures that exist but belong to other parameters."""
