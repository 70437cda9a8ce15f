"""Names the rows of the table of distances, and computes those of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from pinxit.evaluate.distances.feature_rows import FeatureRows, SelectedRows
from pinxit.evaluate.distances.frechet import frechet_distance
from pinxit.evaluate.distances.kernel import gaussian_mmd, kernel_distance
from pinxit.evaluate.distances.precision_recall import NEIGHBOURS, precision_recall
from pinxit.evaluate.distances.statistics import Statistics, statistics_of

DISTANCES = ("frechet", "kernel", "mmd")
"""The figures that are 0 for equal distributions; larger is worse."""
FRACTIONS = ("precision", "recall", "density", "coverage")
"""The figures that larger is better for."""
INCEPTION, CMMD_CLIP = "inception", "clip_l_336"
"""The names of the networks whose figures have names of their own."""
STANDARD = {INCEPTION: {"frechet": "fid", "kernel": "kid"}, CMMD_CLIP: {"mmd": "cmmd"}}
"""The rows of networks whose distances are standard; other distances make no sense there."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sets of pictures as features of one network."""

    pictures: FeatureRows
    """The features of the set that is measured."""
    reference: FeatureRows
    """The features of the set that it is compared with."""
    stored: Statistics | None = None
    """The reference's statistics from a file, for the Fréchet distance alone, or None."""

    @cached_property
    def statistics(self) -> Statistics:
        """The mean and covariance of the reference."""
        return self.stored or statistics_of(self.reference)

    @property
    def equal_count(self) -> int:
        """The number of pictures of each set that precision and recall compare."""
        return min(len(self.pictures), len(self.reference))

    def with_pictures(self, pictures: FeatureRows) -> Comparison:
        """Returns the comparison of other pictures with the same reference."""
        other = Comparison(pictures, self.reference, self.stored)
        other.__dict__["statistics"] = self.statistics
        return other


def distance_rows(network: str) -> dict[str, str]:
    """Returns the distances that are computed on a network's features: name of the row by kind."""
    return STANDARD.get(network) or {kind: f"{kind}_{network}" for kind in DISTANCES}


def figure_groups(
    network: str, comparison: Comparison
) -> Iterator[Callable[[], Mapping[str, float]]]:
    """Yields functions that compute rows of the table: one for each distance, one for the rest."""
    compute: dict[str, Callable[[], float]] = {
        "frechet": lambda: frechet_distance(
            statistics_of(comparison.pictures), comparison.statistics
        ),
        "kernel": lambda: kernel_distance(comparison.pictures, comparison.reference),
        "mmd": lambda: gaussian_mmd(comparison.pictures, comparison.reference),
    }
    for kind, row in distance_rows(network).items():
        yield lambda row=row, kind=kind: {row: compute[kind]()}
    if comparison.equal_count > NEIGHBOURS:
        yield lambda: _fractions(network, comparison)


def _fractions(network: str, comparison: Comparison) -> dict[str, float]:
    """Returns precision and recall of equal numbers of pictures, the first ones of each set."""
    first = range(comparison.equal_count)
    figures = precision_recall(
        SelectedRows(comparison.pictures, first), SelectedRows(comparison.reference, first)
    )
    return {f"{kind}_{network}": value for kind, value in asdict(figures).items()}
