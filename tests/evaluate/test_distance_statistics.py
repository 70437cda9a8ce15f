"""Mean and covariance in one pass, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_rows import ArrayRows, correlated

from pinxit.config import UsageError
from pinxit.evaluate.distances.feature_rows import SelectedRows
from pinxit.evaluate.distances.statistics import (
    Statistics,
    load_statistics,
    save_statistics,
    statistics_of,
)
from pinxit.evaluate.feature_store import FeatureStore


@pytest.mark.parametrize("n", [2, 7, 8, 50])
def test_they_are_those_of_numpy(n: int):
    rows = correlated(n, 5)
    statistics = statistics_of(ArrayRows(rows))
    np.testing.assert_allclose(statistics.mean, rows.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(
        statistics.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-15
    )
    assert statistics.count == n


def test_no_digits_are_lost_far_from_zero():
    """The mean of squares minus the square of the mean would be wrong in the first digit here."""
    rows = correlated(60, 4) + np.float32(2**15)
    expected = np.cov(rows.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(statistics_of(ArrayRows(rows)).covariance, expected, rtol=1e-10)
    naive = (rows.T @ rows / 60 - np.outer(rows.mean(0), rows.mean(0))) * (60 / 59)
    assert np.abs(naive / expected - 1).max() > 0.1


def test_a_stores_blocks_are_read(tmp_path: Path):
    rows = correlated(2500, 3)
    store = FeatureStore(tmp_path, width=3)
    for start in range(0, 2500, 800):
        store.append(rows[start : start + 800], name="toy")
    some = SelectedRows(store, range(1, 2500, 2))
    np.testing.assert_array_equal(np.concatenate(list(some.blocks())), rows[1::2])
    np.testing.assert_array_equal(some.take([3, 0]), rows[[7, 1]])
    expected = np.cov(rows[1::2].astype(np.float64), rowvar=False)
    np.testing.assert_allclose(statistics_of(some).covariance, expected, rtol=1e-10)


def test_one_picture_has_no_covariance():
    with pytest.raises(UsageError, match="pictures: 1 is too few for a covariance"):
        statistics_of(ArrayRows(correlated(1, 4)))


@pytest.mark.parametrize(
    ("mean", "covariance", "count", "problem"),
    [
        (np.zeros(3), np.eye(2), None, r"shape \(3,\) and a covariance of shape \(2, 2\)"),
        (np.zeros((2, 2)), np.eye(2), None, r"valid: \(d,\) and \(d, d\)"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.4, 1.0]]), None, "not symmetric"),
        (np.array([0, np.nan]), np.eye(2), None, "not finite"),
        (np.zeros(2), np.array([[np.inf, 0], [0, 1]]), None, "not finite"),
        (np.zeros(2), np.eye(2), 1, "1 is too few pictures"),
    ],
)
def test_impossible_ones_are_refused(mean, covariance, count, problem):
    with pytest.raises(UsageError, match=problem):
        Statistics(mean, covariance, count)


def test_an_indefinite_matrix_is_refused():
    statistics = Statistics(np.zeros(2), np.diag([1.0, -0.5]))
    with pytest.raises(UsageError, match=r"negative eigenvalue -0\.5"):
        _ = statistics.root


def test_a_file_brings_them_back(tmp_path: Path):
    statistics = statistics_of(ArrayRows(correlated(20, 4)), about={"network": "toy"})
    save_statistics(tmp_path / "real.npz", statistics)
    again = load_statistics(tmp_path / "real.npz")
    np.testing.assert_array_equal(again.mean, statistics.mean)
    np.testing.assert_array_equal(again.covariance, statistics.covariance)
    assert again.count == 20 and again.about["about"] == {"network": "toy"}
    assert len(again.about["sha256"]) == 64
    with np.load(tmp_path / "real.npz", allow_pickle=False) as file:  # as clean-fid reads it
        assert file["mu"].shape == (4,) and file["sigma"].shape == (4, 4)


def test_files_of_other_tools_are_read(tmp_path: Path):
    """ADM's have more arrays, and some are in float32."""
    mean, covariance = np.zeros(2, np.float32), np.eye(2, dtype=np.float32)
    np.savez(tmp_path / "adm.npz", mu=mean, sigma=covariance, mu_s=mean, sigma_s=covariance)
    statistics = load_statistics(tmp_path / "adm.npz")
    assert statistics.count is None and statistics.mean.dtype == np.float64


def write_damaged(path: Path) -> None:
    np.savez(path, mu=np.zeros(200), sigma=np.eye(200))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_pickle(path: Path) -> None:
    np.savez(path, mu=np.array([{}], object), sigma=np.eye(1))


def write_other(path: Path) -> None:
    np.savez(path, feats=np.zeros((3, 2)))


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.eye(2))


def write_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def write_wide(path: Path) -> None:
    np.savez(path, mu=np.zeros(3), sigma=np.eye(2))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: None, "is not a file; valid: an .npz file with the arrays mu and sigma"),
        (lambda path: path.write_bytes(b""), "holds no statistics"),
        (lambda path: path.write_text("mu"), "holds no statistics"),
        (write_damaged, "holds no statistics"),
        (write_pickle, "holds no statistics: Object arrays cannot be loaded"),
        (write_other, "it has no mu and no sigma, but feats"),
        (write_array, "holds no statistics: it is one array"),
        (write_pointer, "Git LFS"),
        (write_wide, "a mean of shape"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, write, problem: str):
    path = tmp_path / "real.npz"
    write(path)
    with pytest.raises(UsageError, match=problem) as error:
        load_statistics(path)
    assert str(error.value).startswith("reference_statistics: ")
    assert "real.npz" in str(error.value) and "\n" not in str(error.value)
