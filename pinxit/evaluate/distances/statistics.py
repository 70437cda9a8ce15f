"""Mean and covariance of a set's features, accumulated in float64, and their files.

The features are read once, in blocks. Each block's mean and sum of squared deviations are merged
into the total by the pairwise update of Chan, Golub and LeVeque (1979). No large squares are
subtracted from each other, so no digits are lost, and the memory does not grow with the number of
pictures: it is a few matrices of width x width.

Files are those of clean-fid, pytorch-fid and guided-diffusion (ADM): ``.npz`` with the arrays
``mu`` and ``sigma``. Files written here also have the count and a description.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError
from pinxit.evaluate.distances.feature_rows import FeatureRows
from pinxit.files import whole
from pinxit.lfs_pointer import pointer_problem

NAMES = ("mu", "sigma")
"""The names of the mean and the covariance in a file."""
SYMMETRY = 1e-6
"""Largest difference between a covariance and its transpose, relative to its largest value."""
NEGATIVE = 1e-3
"""Largest negative eigenvalue of a covariance, relative to its largest eigenvalue: files in
float32 have slightly negative ones."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The mean and covariance of the features of a set of pictures.

    Raises `UsageError` for wrong shapes, values that are not finite, a covariance that is not
    symmetric, and sets of one picture, which have no covariance.
    """

    mean: np.ndarray
    """The mean of each of the d features, as float64."""
    covariance: np.ndarray
    """The d x d covariance as float64, with the divisor N - 1, as of `numpy.cov`."""
    count: int | None = None
    """Number of pictures, or None if a file does not say it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The pictures and the network, as JSON."""

    def __post_init__(self) -> None:
        mean, covariance = self.mean, self.covariance
        if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
            raise UsageError(
                f"statistics: a mean of shape {mean.shape} and a covariance of shape "
                f"{covariance.shape}; valid: (d,) and (d, d)"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UsageError(
                "statistics: the mean or the covariance has values that are not finite"
            )
        asymmetry = np.abs(covariance - covariance.T).max()
        if asymmetry > SYMMETRY * np.abs(covariance).max():
            raise UsageError(f"statistics: the covariance is not symmetric (by {asymmetry:.3g})")
        if self.count is not None and self.count < 2:
            raise UsageError(
                "statistics", self.count, problem="too few pictures for a covariance", valid="2"
            )

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.mean)

    @cached_property
    def root(self) -> Float[np.ndarray, "r d"]:
        """A matrix R with R^T R = covariance, and one row for each eigenvalue that is not 0.

        Eigenvalues below the rounding error of the largest one count as 0, as in
        `numpy.linalg.matrix_rank`: a covariance of fewer pictures than features is singular, and
        its zeros must not become square roots of rounding errors.
        """
        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        largest = max(values[-1], 0.0)
        if values[0] < -NEGATIVE * largest:
            raise UsageError(
                f"statistics: the covariance has the negative eigenvalue {values[0]:.3g} (the "
                f"largest is {largest:.3g}), so it is damaged or no covariance"
            )
        positive = values > largest * self.width * np.finfo(np.float64).eps
        return np.sqrt(values[positive])[:, None] * vectors[:, positive].T


def statistics_of(rows: FeatureRows, about: Mapping[str, Any] | None = None) -> Statistics:
    """Returns the mean and covariance of rows of features, which are read once.

    Raises `UsageError` for fewer than two rows.
    """
    count, mean = 0, np.zeros(rows.width)
    squares = np.zeros((rows.width, rows.width))
    for block in rows.blocks():
        values = block.astype(np.float64)
        here = values.mean(axis=0)
        values -= here
        squares += values.T @ values
        delta, total = here - mean, count + len(values)
        squares += np.outer(delta * (count * len(values) / total), delta)
        mean += delta * (len(values) / total)
        count = total
    if count < 2:
        raise UsageError("pictures", count, problem="too few for a covariance", valid="at least 2")
    squares /= count - 1
    return Statistics(mean, squares, count, dict(about or {}))


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes an ``.npz`` file that clean-fid and pytorch-fid can read too."""
    about = json.dumps(statistics.about, sort_keys=True)
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            mu=statistics.mean,
            sigma=statistics.covariance,
            count=np.int64(statistics.count or 0),
            about=np.array(about),
        )


def load_statistics(path: Path, *, setting: str = "reference_statistics") -> Statistics:
    """Returns the statistics in an ``.npz`` file with the arrays ``mu`` and ``sigma``.

    Raises `UsageError`, which calls the setting `setting`, if the file is missing, damaged or holds
    other things. Pickled objects in it are never opened.
    """
    if not path.is_file():
        valid = "an .npz file with the arrays mu and sigma"
        raise UsageError(setting, str(path), problem="not a file", valid=valid)
    try:
        arrays = _arrays(path)
        count = int(arrays["count"]) if "count" in arrays else 0
        about = json.loads(str(arrays["about"])) if "about" in arrays else {}
        mean, covariance = (np.asarray(arrays[name], np.float64) for name in NAMES)
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        reason = pointer_problem(path) or str(error)
        raise UsageError(f"{setting}: {path} holds no statistics: {reason}") from error
    hashed = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        about = {"file": path.name, "sha256": hashed, **({"about": about} if about else {})}
        return Statistics(mean, covariance, count or None, about)
    except UsageError as error:
        raise UsageError(f"{setting}: {path}: {error}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a file. Raises ValueError if there is no mu or sigma."""
    with path.open("rb") as opened:
        file = np.load(opened, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is one array, not an .npz file with mu and sigma")
        missing = [name for name in NAMES if name not in file.files]
        if missing:
            has = ", ".join(file.files) or "nothing"
            raise ValueError(f"it has no {' and no '.join(missing)}, but {has}")
        return {name: file[name] for name in (*NAMES, "count", "about") if name in file.files}
