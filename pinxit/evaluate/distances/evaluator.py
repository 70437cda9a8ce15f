"""The evaluator `distances`: drawn pictures against real ones, and real ones against real ones.

The table has two columns. *value* compares the drawn pictures with the reference. *noise* compares
as many real pictures with a reference: what a perfect model would get. Rows named ``pictures`` and
``reference_pictures`` are the sizes of both sets. The names of the other rows are in `figures`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.distances.cautions import (
    NOISE,
    PICTURES,
    REFERENCE,
    VALUE,
    too_few,
    within_noise,
)
from pinxit.evaluate.distances.feature_rows import SelectedRows
from pinxit.evaluate.distances.figures import INCEPTION, Comparison, figure_groups
from pinxit.evaluate.distances.kernel import SCALE, SIGMA, SUBSET_SEED, SUBSET_SIZE, SUBSETS
from pinxit.evaluate.distances.precision_recall import NEIGHBOURS
from pinxit.evaluate.distances.statistics import Statistics, load_statistics
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.picture_sets import PictureSet
from pinxit.evaluate.reference_pictures import CROP, REFERENCE_SEED


def distances(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields ``distances/{value,noise}/row`` and its value, and warns where they mean little.

    Yields nothing without networks or prompts. Raises `UsageError` for a single picture, and for a
    file of statistics that does not fit the network.
    """
    if not _has_pictures(context):
        return
    stored = _check(context)
    values: dict[str, float] = {}
    cautions: list[str] = []
    for extractor in context.networks:
        value, noise = _comparisons(context, extractor, stored)
        if not values:
            yield from _counts(value, noise)
        for name, number in _figures(context, extractor, value, noise):
            values[name] = number
            yield name, number
        counts = [len(value.pictures), *([] if value.stored else [len(value.reference)])]
        cautions += too_few(extractor.name, extractor.width, *counts)
        if min(value.equal_count, noise.equal_count) <= NEIGHBOURS:
            cautions.append(f"precision and recall need {NEIGHBOURS + 1} pictures of each set")
    for caution in dict.fromkeys([*cautions, *within_noise(values)]):
        warnings.warn(caution, stacklevel=2)


def distances_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `distances` reads. Raises the same errors, before any work."""
    if not _has_pictures(context):
        return
    _check(context)
    sets = [context.drawn, context.reference, *([context.real] if context.judge else [])]
    yield from ((pictures, extractor) for extractor in context.networks for pictures in sets)


def distances_protocol(context: EvaluationContext) -> dict[str, Any]:
    """Returns everything that the figures depend on besides the drawn pictures, as JSON.

    Returns an empty dict if nothing is measured.
    """
    if not _has_pictures(context):
        return {}
    scenes, stored = context.judge is not None, _stored(context)
    noise, against = _noise_counts(context)
    origin = f"renders of held-out scenes, seed {REFERENCE_SEED}" if scenes else "held-out rows"
    return {
        "pictures": len(context.drawn),
        "pictures_hash": context.observations.key(context.drawn),
        "seeds": "picture i has seed i",
        "reference": {
            "pictures": len(context.reference),
            "hash": context.observations.key(context.reference),
            "origin": origin,
            "crop": None if scenes else f"{CROP}, side {context.model.image_size}",
        },
        "noise": {
            "pictures": noise,
            "reference_pictures": against,
            "origin": "renders of the prompts" if scenes else "rows 0, 2, ... against 1, 3, ...",
        },
        "fid_reference": None if stored is None else {**stored.about, "pictures": stored.count},
        "networks": [
            {**extractor.about(), "name": extractor.name, "features": extractor.width}
            for extractor in context.networks
        ],
        "frechet": "covariance with N - 1, float64",
        "kernel": {"subsets": SUBSETS, "subset_size": SUBSET_SIZE, "seed": SUBSET_SEED},
        "mmd": {"sigma": SIGMA, "scale": SCALE},
        "precision_recall": {
            "neighbours": NEIGHBOURS,
            "pictures": min(len(context.drawn), len(context.reference)),
        },
    }


def _has_pictures(context: EvaluationContext) -> bool:
    return bool(context.networks and context.prompts and len(context.prompted))


def _check(context: EvaluationContext) -> Statistics | None:
    """Refuses too few pictures and a file that does not fit. Returns the file's statistics."""
    smallest = min(len(context.drawn), len(context.reference), *_noise_counts(context))
    if smallest < 2:
        what = "drawn" if len(context.drawn) < 2 else "real"
        problem = f"too few for distances: one {what} picture has no covariance"
        few = len(context.drawn) if what == "drawn" else len(context.reference)
        valid = "at least 2 (4 rows of a dataset), or other --evaluators than distances"
        raise UsageError(
            "prompts" if what == "drawn" else "images", few, problem=problem, valid=valid
        )
    stored = _stored(context)
    if stored is None:
        return None
    file = str(context.reference_statistics)
    widths = [one.width for one in context.networks if one.name == INCEPTION]
    if not widths:
        problem = f"for {INCEPTION}'s features, but no weights of it were named"
        raise UsageError("reference_statistics", file, problem=problem, valid="with --inception")
    if stored.width != widths[0]:
        problem, valid = f"of {stored.width} features", f"statistics of {widths[0]} features"
        raise UsageError("reference_statistics", file, problem=problem, valid=valid)
    return stored


def _stored(context: EvaluationContext) -> Statistics | None:
    path = context.reference_statistics
    if path is None:
        return None
    stat = path.stat() if path.is_file() else None
    return _load_once(path, (stat.st_mtime_ns, stat.st_size) if stat else (0, 0))


@lru_cache(maxsize=1)
def _load_once(path: Path, version: tuple[int, int]) -> Statistics:
    """Reads a file once, unless it changes."""
    return load_statistics(path)


def _noise_counts(context: EvaluationContext) -> tuple[int, int]:
    """Returns the number of real pictures that the noise is measured on, and of its reference."""
    reference = len(context.reference)
    if context.judge is not None:
        return len(context.real), reference
    return min(len(context.drawn), (reference + 1) // 2), reference // 2


def _comparisons(
    context: EvaluationContext, extractor: Extractor, stored: Statistics | None
) -> tuple[Comparison, Comparison]:
    """Returns the comparisons of drawn pictures and of real ones with a reference.

    Rows of a dataset are halved for the noise: every second one, against the others.
    """
    features = context.observations.features
    file = stored if extractor.name == INCEPTION else None
    reference = features(context.reference, extractor)
    value = Comparison(features(context.drawn, extractor), reference, file)
    if context.judge is not None:
        return value, value.with_pictures(features(context.real, extractor))
    size, _ = _noise_counts(context)
    even, odd = (range(start, len(reference), 2) for start in (0, 1))
    real = SelectedRows(reference, even[:size])
    return value, Comparison(real, SelectedRows(reference, odd), file)


def _counts(value: Comparison, noise: Comparison) -> Iterator[tuple[str, float]]:
    for prefix, pair in ((VALUE, value), (NOISE, noise)):
        yield prefix + PICTURES, float(len(pair.pictures))
        yield prefix + REFERENCE, float(len(pair.reference))


def _figures(
    context: EvaluationContext, extractor: Extractor, value: Comparison, noise: Comparison
) -> Iterator[tuple[str, float]]:
    """Yields each row's value and noise, and shows the progress."""
    name = extractor.name
    groups = [
        (prefix, compute)
        for both in zip_longest(figure_groups(name, value), figure_groups(name, noise))
        for prefix, compute in zip((VALUE, NOISE), both, strict=True)
        if compute is not None
    ]
    with context.observations.showing(f"computing distances on {name}", "figure") as report:
        for done, (prefix, compute) in enumerate(groups):
            report(done, len(groups))
            context.observations.check()
            yield from ((prefix + row, number) for row, number in compute().items())
        report(len(groups), len(groups))
