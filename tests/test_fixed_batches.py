"""Batches of one size and one shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pinxit.fixed_batches import batches_by_shape, padded, rounds_of


def test_the_last_row_fills_a_batch():
    rows = np.arange(6, dtype=np.int32).reshape(3, 2)
    full = padded(rows, 5)
    assert full.dtype == np.int32
    np.testing.assert_array_equal(full, [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])
    np.testing.assert_array_equal(padded(rows, 3), rows)
    assert padded(["a", "b"], 4) == ["a", "b", "b", "b"] and padded(["a"], 1) == ["a"]


@pytest.mark.parametrize("rows", [[], ["a", "b", "c"], np.zeros((0, 2)), np.zeros((3, 2))])
def test_what_cannot_be_padded_is_refused(rows: Any):
    with pytest.raises(ValueError, match=r"rows: \d cannot be padded to 2; valid: 1 to 2"):
        padded(rows, 2)


def test_a_round_has_one_full_batch_for_each_device():
    batches = [range(3), range(3, 6), range(6, 7)]
    assert rounds_of(batches, 3, 1) == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert rounds_of(batches, 3, 2) == [[0, 1, 2, 3, 4, 5], [6, 6, 6, 6, 6, 6]]
    assert rounds_of([], 3, 2) == []


def test_items_of_one_shape_come_together_as_soon_as_they_can():
    words = ["a", "bb", "c", "dd", "eee", "f", "g", "hh"]
    read: list[str] = []

    def noted() -> Any:
        for word in words:
            read.append(word)
            yield word

    batches = batches_by_shape(noted(), 2, shape=len)
    assert next(batches) == ["a", "c"] and read == ["a", "bb", "c"]
    assert list(batches) == [["bb", "dd"], ["f", "g"], ["eee"], ["hh"]]
