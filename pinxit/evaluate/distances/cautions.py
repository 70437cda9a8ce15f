"""Says when a distance means little: from too few pictures, or not above its own noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pinxit.evaluate.distances.figures import DISTANCES, STANDARD, distance_rows
from pinxit.progress import counted

VALUE, NOISE = "distances/value/", "distances/noise/"
"""The beginnings of the names of a value and of its noise."""
PICTURES, REFERENCE = "pictures", "reference_pictures"
"""The rows with the sizes of both sets."""
TIMES = 2.0
"""A value below this multiple of its noise is mostly noise."""
SHOWN = 4
"""Number of distances in the line of words."""


def fewest_pictures(width: int) -> int:
    """Returns the number of pictures below which the covariance of `width` features is singular.

    A Fréchet distance from fewer is mostly bias. From ten times as many it is steady.
    """
    return width + 1


def too_few(network: str, width: int, *counts: int) -> Iterator[str]:
    """Yields a warning if a Fréchet distance of `width` features is computed from too few."""
    row, fewest = distance_rows(network).get("frechet"), fewest_pictures(width)
    if row is not None and min(counts) < fewest:
        yield (
            f"{row} from {counted(min(counts), 'picture')} is mostly bias: {network} has {width} "
            f"features, so that below {fewest:,} the covariance is singular"
        )


def within_noise(values: Mapping[str, float]) -> Iterator[str]:
    """Yields a warning that lists the distances that are mostly noise."""
    rows = [
        row
        for row, value in _distances(values).items()
        if value < TIMES * abs(values.get(NOISE + row, 0.0))
    ]
    if rows:
        yield (
            f"{', '.join(rows)}: below {TIMES:g} times the noise, so that most of it is bias and "
            "chance; more pictures tell more"
        )


def distances_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the sizes of both sets and the first distances. Cautions are warnings."""
    drawn, reference = (int(values[VALUE + name]) for name in (PICTURES, REFERENCE))
    rows = list(_distances(values).items())
    figures = [f"{row} {value:.4g} ({values[NOISE + row]:.4g})" for row, value in rows[:SHOWN]]
    return (
        f"{counted(drawn, 'drawn picture')} against {counted(reference, 'real one')} (in brackets: "
        f"real pictures instead): {', '.join(figures)}"
    )


def _distances(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values that are distances, by the name of their row."""
    named = {row for rows in STANDARD.values() for row in rows.values()}
    rows = {name.removeprefix(VALUE): v for name, v in values.items() if name.startswith(VALUE)}
    return {
        row: value
        for row, value in rows.items()
        if row in named or row.partition("_")[0] in DISTANCES
    }
