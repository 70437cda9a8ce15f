"""Rows of features in pieces: whatever is written in whatever pieces, the rows are the same."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import psutil
import pytest

from pinxit.config import UsageError
from pinxit.evaluate.feature_store import FeatureStore

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


def filled(folder: Path, *, start: int = 0, stop: int = 20, together: int = 7) -> FeatureStore:
    """A store with the rows up to `stop`, in pieces, which begins at row `start`."""
    store = FeatureStore(folder, width=3)
    assert len(store) == start
    for first in range(start, stop, together):
        store.append(ROWS[first : min(first + together, stop)], name="toy")
    return store


def test_rows_are_taken_over_the_ends_of_pieces(tmp_path: Path):
    store = filled(tmp_path)
    np.testing.assert_array_equal(
        store.take([6, 7, 0, 19, 13, 14, 6]), ROWS[[6, 7, 0, 19, 13, 14, 6]]
    )
    assert store.take([]).shape == (0, 3)
    blocks = list(store.blocks(2, 17, size=6))
    assert [len(block) for block in blocks] == [6, 6, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), ROWS[2:17])
    np.testing.assert_array_equal(np.concatenate(list(store.blocks())), ROWS)
    for numbers in ([20], [-1]):
        with pytest.raises(IndexError, match="of 20"):
            store.take(numbers)


def test_an_interrupted_store_goes_on_after_its_last_piece(tmp_path: Path):
    filled(tmp_path, stop=14)
    store = filled(tmp_path, start=14, together=2)
    np.testing.assert_array_equal(store.take(range(20)), ROWS)
    assert len(FeatureStore(tmp_path, width=3)) == 20


def test_two_writers_with_other_pieces_leave_the_same_rows(tmp_path: Path):
    """Both begin with an empty folder and write in turn, and one of them is killed."""
    one, other = FeatureStore(tmp_path, width=3), FeatureStore(tmp_path, width=3)
    for first in range(0, 20, 5):
        one.append(ROWS[first : first + 5], name="toy")
        if first < 10:
            start = len(other)
            other.append(ROWS[start : start + 2], name="toy")
    np.testing.assert_array_equal(one.take(range(20)), ROWS)
    np.testing.assert_array_equal(other.take(range(4)), ROWS[:4])
    again = FeatureStore(tmp_path, width=3)
    assert 0 < len(again) < 20  # the killed writer replaced the first piece by a shorter one
    again = filled(tmp_path, start=len(again), together=3)
    np.testing.assert_array_equal(again.take(range(20)), ROWS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_with_their_picture(tmp_path: Path, value: float):
    store = filled(tmp_path, stop=7)
    rows = ROWS[7:10].copy()
    rows[1, 2] = value
    with pytest.raises(UsageError, match=r"toy: the features of picture 8 are not finite \(1 of 3"):
        store.append(rows, name="toy")
    assert len(store) == len(FeatureStore(tmp_path, width=3)) == 7


def test_a_damaged_piece_is_computed_again(tmp_path: Path):
    filled(tmp_path)
    pieces = sorted(tmp_path.glob("rows-*.npy"))
    pieces[1].write_bytes(pieces[1].read_bytes()[:90])
    np.save(pieces[2], np.zeros((7, 4), np.float32))
    assert len(FeatureStore(tmp_path, width=3)) == 7
    np.testing.assert_array_equal(filled(tmp_path, start=7).take(range(20)), ROWS)


def test_rows_of_another_width_are_a_bug(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        FeatureStore(tmp_path, width=3).append(np.zeros((2, 4), np.float32), name="toy")


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="memory is returned on Linux alone")
def test_rows_that_were_read_do_not_stay_in_memory(tmp_path: Path):
    store = FeatureStore(tmp_path, width=4096)
    for start in range(40):
        store.append(np.full((64, 4096), start, np.float32), name="toy")
    list(store.blocks(0, 256, size=256))
    before = resident_megabytes()
    assert sum(float(block[0, 0]) for block in store.blocks(size=64)) == sum(range(40))
    assert resident_megabytes() - before < 20  # the files have 42 MB


def resident_megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20
