"""The events of a job, in the order in which a listener sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Queued:
    """The job's place in the queue has changed."""

    position: int
    """The number of jobs that start before it, plus one; 0 when it is being drawn."""


@dataclass(frozen=True)
class Step:
    """A picture has made further steps."""

    picture: int
    """The picture's number in the job."""
    step: int
    """The number of steps that are done."""
    steps: int
    """The number of steps in all."""


@dataclass(frozen=True)
class Preview:
    """The picture that a step predicts."""

    picture: int
    """The picture's number in the job."""
    step: int
    """The number of steps that are done."""
    steps: int
    """The number of steps in all."""
    image: Image.Image
    """The predicted picture."""


@dataclass(frozen=True)
class Finished:
    """A picture is finished."""

    picture: int
    """The picture's number in the job."""
    image: Image.Image
    """The finished picture, an RGB image."""
    recipe: dict[str, Any]
    """The recipe that draws it again."""
    stored: str | None
    """Its name in the gallery, or None if it is not stored."""


@dataclass(frozen=True)
class JobEnded:
    """The job has ended; no event follows."""

    state: str
    """The state in which it ended: done, failed or cancelled."""
    error: Exception | None
    """The reason why it failed, otherwise None."""


Event = Queued | Step | Preview | Finished | JobEnded
