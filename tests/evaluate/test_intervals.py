"""Intervals of accuracies whose pictures come in groups of four."""

from __future__ import annotations

import numpy as np
import pytest

from pinxit.evaluate.intervals import (
    effective_number,
    interval,
    mean_interval,
    wilson,
)


def verdicts(*right: int) -> np.ndarray:
    """Four pictures of each prompt, of which so many are right."""
    return np.array([[i < n for i in range(4)] for n in right])


def drawn(rng: np.random.Generator, accuracy: float, correlation: float, prompts: int):
    """Verdicts with a correlation between the pictures of a prompt (beta-binomial)."""
    if correlation:
        spread = 1 / correlation - 1
        each = rng.beta(accuracy * spread, (1 - accuracy) * spread, (prompts, 1))
    else:
        each = np.full((prompts, 1), accuracy)
    return rng.random((prompts, 4)) < each


def test_wilson_agrees_with_a_known_interval():
    """81 of 263: .2553 to .3662 (Newcombe 1998, table I)."""
    assert np.round(wilson(81 / 263, 263), 4).tolist() == [0.2553, 0.3662]
    assert np.round(wilson(0.0, 20), 4).tolist() == [0.0, 0.1611]
    assert np.round(wilson(15 / 148, 148), 4).tolist() == [0.0624, 0.1605]


def test_pictures_of_a_prompt_that_agree_count_less():
    together, apart = verdicts(*[4] * 40, *[0] * 10), verdicts(*[4, 3, 3, 3, 3] * 10)
    assert together.mean() == pytest.approx(0.8) == apart.mean()
    assert effective_number(together) < 52
    assert effective_number(apart) > 180
    low, high = interval(together)
    assert low < interval(apart)[0] < 0.8 < interval(apart)[1] < high


@pytest.mark.parametrize("right", [0, 4])
def test_at_the_ends_each_prompt_counts_once(right: int):
    low, high = interval(verdicts(*[right] * 50))
    end, other = (low, high) if right == 0 else (high, low)
    assert end == right / 4
    assert abs(other - end) == pytest.approx(0.0713, abs=1e-4)


def test_a_single_failure_hardly_moves_the_bound():
    all_right, one_wrong = interval(verdicts(*[4] * 50)), interval(verdicts(3, *[4] * 49))
    assert abs(one_wrong[0] - all_right[0]) < 0.03
    assert one_wrong[1] < all_right[1] == 1


def test_the_mean_of_tasks_is_known_better_than_each():
    bounds = [(0.7, 0.9)] * 4
    low, high = mean_interval([0.8] * 4, bounds)
    assert (low, high) == pytest.approx((0.75, 0.85))
    low, high = mean_interval([1.0] * 5, [interval(verdicts(*[4] * 50))] * 5)
    assert high == 1 and 0.96 < low < 0.97


def coverage(accuracy: float, correlation: float, prompts: int, repeats: int) -> float:
    rng = np.random.default_rng([prompts, int(1000 * accuracy), int(100 * correlation)])
    inside = 0
    for _ in range(repeats):
        low, high = interval(drawn(rng, accuracy, correlation, prompts))
        inside += low <= accuracy <= high
    return inside / repeats


@pytest.mark.parametrize(("accuracy", "correlation"), [(0.8, 0.3), (0.98, 0.6)])
def test_the_interval_covers_the_truth(accuracy: float, correlation: float):
    assert coverage(accuracy, correlation, 50, repeats=400) > 0.92


def test_the_usual_interval_would_not_cover_it():
    """A Wilson interval of 200 independent pictures: the test above can fail."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        right = drawn(rng, 0.8, 0.6, 50)
        low, high = wilson(float(right.mean()), right.size)
        inside += low <= 0.8 <= high
    assert inside / 400 < 0.85


@pytest.mark.slow
def test_the_interval_of_the_mean_covers_the_truth():
    truth = np.array([0.99, 0.9, 0.975, 0.92, 0.92])
    for scale, correlation in ((1.0, 0.6), (1.0, 0.0), (0.6, 0.3), (1.01, 0.6)):
        accuracies = scale * truth
        rng = np.random.default_rng([int(100 * scale), int(10 * correlation)])
        inside = 0
        for _ in range(1000):
            right = [drawn(rng, accuracy, correlation, 50) for accuracy in accuracies]
            means = [float(one.mean()) for one in right]
            low, high = mean_interval(means, [interval(one) for one in right])
            inside += low <= accuracies.mean() <= high
        assert 0.93 < inside / 1000 < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [10, 50])
def test_the_interval_covers_the_truth_everywhere(prompts: int):
    """At 95 %: mostly a little more, and at worst 90 % where pictures of a prompt all agree."""
    covered = [
        coverage(accuracy, correlation, prompts, repeats=2000)
        for accuracy in (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
        for correlation in (0, 0.1, 0.3, 0.6, 0.95)
    ]
    assert min(covered) > 0.9
    assert 0.95 < np.mean(covered) < 0.99
