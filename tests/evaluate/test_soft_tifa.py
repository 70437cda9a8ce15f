"""Soft-TIFA's two means."""

from __future__ import annotations

import pytest

from pinxit.config import UsageError
from pinxit.evaluate.soft_tifa import soft_tifa


def test_means():
    arithmetic, geometric = soft_tifa([[0.9, 0.4], [1.0], [0.5, 0.0, 1.0]])
    assert arithmetic == pytest.approx((0.65 + 1 + 0.5) / 3)
    assert geometric == pytest.approx((0.6 + 1 + 0) / 3)


@pytest.mark.parametrize("wrong", [[], [[]], [[0.5], [1.5]], [[float("nan")]]])
def test_other_numbers_are_refused(wrong):
    with pytest.raises(UsageError, match="probabilities"):
        soft_tifa(wrong)
