"""How far real pictures are from real pictures: the noise and the bias of each distance.

A distance between two sets of the same kind is not 0: it falls as both sets grow. The table in
``noise.json`` was measured on scenes by ``benchmarks/evaluation_noise.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pinxit.config import read_json
from pinxit.evaluate.distances.figures import DISTANCES, FRACTIONS

NOISE = Path(__file__).with_name("noise.json")
"""The file with the measured table."""


@cache
def measured_noise() -> Mapping[str, Any]:
    """Returns the content of the table's file: command, version, and figures by network."""
    return read_json(NOISE)


def noise_of_real_pictures() -> Iterator[
    tuple[str, Sequence[str], list[tuple[int, tuple[float, ...]]]]
]:
    """Yields, for each network of the table, its name, the kinds of distances, and rows: a number
    of pictures, and the mean of each distance between two sets of that many real pictures."""
    for network, one in measured_noise()["networks"].items():
        kinds = [kind for kind in DISTANCES if kind in one["sets"][0]]
        yield (
            network,
            kinds,
            [(row["count"], tuple(float(row[kind][0]) for kind in kinds)) for row in one["sets"]],
        )


def noise_table(network: str) -> str:
    """Returns a Markdown table of the figures between two disjoint sets of real pictures.

    For a network without one, returns a sentence that names the noise column instead.
    """
    stored = measured_noise()
    measured = stored["networks"].get(network)
    if measured is None:
        return (
            f"No table of noise comes with Pinxit for {network}: compare each value with the noise "
            "column, which is measured on as many real pictures."
        )
    kinds = [kind for kind in (*DISTANCES, *FRACTIONS) if kind in measured["sets"][0]]
    lines = [
        f"Real pictures against as many other real ones ({network}, {measured['features']} "
        f"features, {stored['pictures']}; mean ± standard deviation of {stored['repeats']}):",
        "",
        f"| pictures | {' | '.join(kinds)} |",
        f"|---:|{'---:|' * len(kinds)}",
    ]
    for row in measured["sets"]:
        cells = [f"{_digits(row[kind][0], 3)} ± {_digits(row[kind][1], 1)}" for kind in kinds]
        lines.append(f"| {row['count']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(value: float, digits: int) -> str:
    """Returns a number with this number of digits, without an exponent unless it is tiny."""
    return f"{float(f'{value:.{digits}g}'):,g}"
