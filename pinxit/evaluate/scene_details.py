"""Details of drawn pictures against those of renders: stars, peaks, trees, clouds, edges.

The judge reads attributes, and hardly notices that stars are missing. This table counts them. Each
detail is read in the pictures whose prompt calls for it. ``distance`` is the 1-Wasserstein distance
between the readings of drawn and of real pictures, over the standard deviation of the real ones.
``noise`` is the same distance for other renders of the same scenes: a perfect model's value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.details.catalogue import COUNTS, Detail
from pinxit.evaluate.details.counts import SceneDetails
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.picture_sets import PictureSet

LEAST_PICTURES = 8
"""The least number of pictures that must show a detail; with fewer it is left out of the table."""


def details(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``details/{drawn,real,distance,noise}/NAME``: means of readings, and distances.

    ``distance/mean`` and ``noise/mean`` are means over the details. Yields nothing without a judge
    and prompts, since only the pictures of scenes have known details.
    """
    scenes = context.prompted
    other = context.other_renders
    if context.judge is None or not isinstance(scenes, Scenes) or other is None:
        return
    extractor = SceneDetails()
    drawn, real, others = (
        np.concatenate(list(context.observations.features(pictures, extractor).blocks()))
        for pictures in (context.drawn, context.real, other)
    )
    facts = [scenes.scene(i) for i in range(len(scenes))]
    rows: dict[str, dict[str, float]] = {}
    for detail in COUNTS:
        numbers = [i for i, scene in enumerate(facts) if detail.shown(scene)]
        if len(numbers) < LEAST_PICTURES:
            continue
        one, two, three = (detail.of(readings[numbers]) for readings in (drawn, real, others))
        rows[detail.name] = {
            "drawn": float(one.mean()),
            "real": float(two.mean()),
            "distance": apart(one, two, detail),
            "noise": apart(three, two, detail),
        }
    if not rows:
        return
    for column in ("distance", "noise"):
        yield f"details/{column}/mean", float(np.mean([row[column] for row in rows.values()]))
    for name, row in rows.items():
        for column, value in row.items():
            yield f"details/{column}/{name}", value


def details_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `details` reads."""
    other = context.other_renders
    if context.judge is not None and other is not None:
        yield from ((one, SceneDetails()) for one in (context.drawn, context.real, other))


def details_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the mean distance and the detail that is furthest from renders."""
    distances = {
        name.rpartition("/")[2]: value
        for name, value in values.items()
        if name.startswith("details/distance/")
    }
    mean = distances.pop("mean")
    worst = max(distances, key=lambda name: distances[name])
    drawn, real = (values[f"details/{column}/{worst}"] for column in ("drawn", "real"))
    return (
        f"details differ from renders by {mean:.2f} standard deviations (a perfect model: "
        f"{values['details/noise/mean']:.2f}), most in {worst.replace('_', ' ')}: "
        f"{drawn:.3g} drawn, {real:.3g} in renders"
    )


def apart(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"], detail: Detail) -> float:
    """Returns the 1-Wasserstein distance over the standard deviation of `other`.

    Both have the same number of readings. The deviation is at least `detail.least`.
    """
    scale = max(float(other.std()), detail.least, 1e-6)
    return wasserstein(one, other) / scale


def wasserstein(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """Returns the 1-Wasserstein distance of two samples of equal size: the mean difference of
    their sorted values."""
    return float(np.abs(np.sort(one) - np.sort(other)).mean())
