"""Wilson's interval and that of a mean of shares."""

from __future__ import annotations

import numpy as np
import pytest

from pinxit.evaluate.geneval.interval import interval_of_mean, wilson_score_interval


def test_values_of_a_textbook():
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for count, expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson_score_interval(*count) == pytest.approx(expected, abs=5e-5)
    assert wilson_score_interval(20, 20)[1] == 1


def test_the_mean_stays_between_0_and_1_and_covers():
    assert interval_of_mean([(0, 4)] * 6)[0] == 0 and interval_of_mean([(4, 4)] * 6)[1] == 1
    assert interval_of_mean([(81, 263)]) == pytest.approx(wilson_score_interval(81, 263))
    rng = np.random.default_rng(0)
    shares, sizes = np.linspace(0.1, 0.95, 6), np.array([80, 99, 80, 94, 100, 100])
    bounds = [
        interval_of_mean([(int(r), int(n)) for r, n in zip(row, sizes, strict=True)])
        for row in rng.binomial(sizes, shares, (1000, 6))
    ]
    covered = np.mean([low <= shares.mean() <= high for low, high in bounds])
    assert 0.93 < covered < 0.98


def test_impossible_counts_are_refused():
    for count in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError):
            wilson_score_interval(*count)
