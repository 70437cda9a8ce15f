"""Variety: how much pictures of one prompt differ from seed to seed, beside renders of its scene.

A prompt leaves open where stars, peaks, the sun and the exact place of a thing are. Renders with
other drawing seeds vary them; a model that has collapsed draws one picture again and again. The
ratio of both spreads is 1 for a perfect model. Below 1, modes are missing. Above 1 is no gain:
noise and mistakes vary as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from pinxit.data.scenes.attributes import Scene
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.details.catalogue import COLUMN, positions_of, shows_stars, star_maps
from pinxit.evaluate.details.counts import ABSENT, SceneDetails
from pinxit.evaluate.details.renders import SEEDS_PER_PROMPT
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.judge_features import JudgeFeatures
from pinxit.evaluate.picture_sets import PictureSet

Spread = Callable[[Float[np.ndarray, "n d"]], float]
"""A function from the rows of one prompt's pictures to their spread."""


def variety(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``variety/{drawn,real,ratio}/NAME``: spreads over seeds, averaged over prompts.

    The first row is the mean distance between features of two pictures of a prompt. Yields nothing
    without a judge or `variety_prompts`.
    """
    sets = context.seed_sets
    if sets is None:
        return
    network = variety_network(context)
    spreads: dict[str, list[tuple[float, float]]] = {}
    for extractor in (network, SceneDetails()):
        stores = [context.observations.features(one, extractor) for one in (sets.drawn, sets.real)]
        for prompt, number in enumerate(sets.numbers):
            here = np.arange(SEEDS_PER_PROMPT) + prompt * SEEDS_PER_PROMPT
            drawn, real = (store.take(here) for store in stores)
            measures: Mapping[str, Spread] = {network.name: pairwise}
            if extractor is not network:
                measures = spreads_of(sets.scenes.scene(number))
            for name, spread in measures.items():
                spreads.setdefault(name, []).append((spread(drawn), spread(real)))
    for name, pairs in spreads.items():
        drawn_mean, real_mean = (float(column) for column in np.mean(pairs, axis=0))
        yield f"variety/drawn/{name}", drawn_mean
        yield f"variety/real/{name}", real_mean
        if real_mean > 0:
            yield f"variety/ratio/{name}", drawn_mean / real_mean


def variety_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `variety` reads."""
    sets = context.seed_sets
    if sets is not None:
        for extractor in (variety_network(context), SceneDetails()):
            yield sets.drawn, extractor
            yield sets.real, extractor


def variety_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the ratio of features and the smallest ratio of a position."""
    ratios = {
        name.rpartition("/")[2]: value
        for name, value in values.items()
        if name.startswith("variety/ratio/")
    }
    first, *others = ratios
    line = f"variety over seeds is {ratios[first]:.2f} of that of renders ({first})"
    if others:
        least = min(others, key=lambda name: ratios[name])
        line += f", least in {least.replace('_', ' ')}: {ratios[least]:.2f}"
    return line


def variety_network(context: EvaluationContext) -> Extractor:
    """Returns the first network of distances, or else the judge's features."""
    if context.networks:
        return context.networks[0]
    assert context.judge is not None
    return JudgeFeatures(context.judge)


def spreads_of(scene: Scene) -> dict[str, Spread]:
    """Returns the spreads of what a scene leaves open, by name."""
    spreads: dict[str, Spread] = {
        name: lambda rows, columns=columns: deviation(rows, columns)
        for name, columns in positions_of(scene).items()
    }
    if shows_stars(scene):
        spreads["star_positions"] = lambda rows: pairwise(star_maps(rows), order=1)
    return spreads


def pairwise(rows: Float[np.ndarray, "n d"], *, order: int = 2) -> float:
    """Returns the mean distance between two different rows, in the norm of this order."""
    rows = rows.astype(np.float64)
    distances = np.linalg.norm(rows[:, None] - rows[None], ord=order, axis=-1)
    return float(distances.sum() / (len(rows) * (len(rows) - 1)))


def deviation(rows: Float[np.ndarray, "n d"], readings: Sequence[str]) -> float:
    """Returns the standard deviation of columns of the picture, averaged over some readings.

    Only pictures that show the detail count. If fewer than half of them do, the deviation is 0.
    """
    deviations = []
    for reading in readings:
        values = rows[:, COLUMN[reading]].astype(np.float64)
        values = values[values != ABSENT]
        deviations.append(values.std(ddof=1) if 2 * len(values) >= len(rows) else 0.0)
    return float(np.mean(deviations))
