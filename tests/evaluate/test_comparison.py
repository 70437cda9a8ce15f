"""Comparisons: paired differences and their intervals, and which values a summary shows."""

from __future__ import annotations

import numpy as np
import pytest

from pinxit.data.scenes.attributes import PLACES
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.comparison.models import ComparedModel, setting_differences
from pinxit.evaluate.comparison.paired import (
    PictureScores,
    _of_answers,
    paired_difference,
    paired_differences,
)
from pinxit.evaluate.headlines import Headline, accuracy_of, constants, frechet_of, headlines
from pinxit.evaluate.prompt_accuracy import accuracy
from pinxit.evaluate.value_table import value_table


def scores(values) -> PictureScores:
    sums = np.asarray(values, np.float64)[:, None]
    return PictureScores(sums, np.ones_like(sums))


def test_equal_models_do_not_differ():
    one = scores(np.random.default_rng(0).random(50))
    difference = paired_difference("x", one, one)
    assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
    assert not difference.clear and difference.pictures == 50


def test_the_interval_is_that_of_paired_differences():
    """Pictures vary a lot, and the difference little: an unpaired interval would hide it."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 400)
    one, other = hard + rng.normal(0.5, 1, 400), hard + rng.normal(0, 1, 400)
    result = paired_difference("x", scores(one), scores(other))
    each = one - other
    error = each.std(ddof=1) / np.sqrt(400)
    assert result.difference == pytest.approx(each.mean(), abs=1e-9)
    assert result.low == pytest.approx(each.mean() - 1.96 * error, abs=0.15 * error)
    assert result.high == pytest.approx(each.mean() + 1.96 * error, abs=0.15 * error)
    assert result.clear
    assert not paired_difference("x", scores(one), scores(rng.permutation(one))).clear


def test_the_interval_covers_the_difference_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        one, other = rng.random(60) < 0.8, rng.random(60) < 0.7
        result = paired_difference("x", scores(one), scores(other))
        covered += result.low <= 0.1 <= result.high
    assert 52 <= covered <= 60


def test_pictures_that_are_not_paired_are_no_comparison():
    with pytest.raises(ValueError, match="shapes"):
        paired_difference("x", scores([1, 2]), scores([1, 2, 3]))
    one = {"a": scores([1, 2]), "b": scores([1, 2])}
    assert [each.value for each in paired_differences(one, {"b": scores([1, 1])})] == ["b"]


def test_scores_of_answers_have_the_evaluators_mean():
    """Prompts with two objects count both, as `accuracy` does."""
    scenes = Scenes(length=40, seed=7, split="heldout")
    nothing = {f"{place}.{part}": "none" for place in PLACES for part in ("colour", "size")}
    answers = [nothing | scenes.scene((i + i % 3) % 40).labels() for i in range(40)]
    expected = np.mean(list(accuracy(scenes, answers).values()))
    assert 0.3 < expected < 0.95
    assert _of_answers(scenes, answers).resampled(np.ones((1, 40)))[0] == pytest.approx(expected)


def test_settings_differ_where_known_ones_do():
    def model(label, **settings):
        return ComparedModel(label, {}, settings, {}, {}, [])

    models = [
        model("a", depth=2, size=64, rate=0.1),
        model("b", depth=4, size=64),
        model("c", size=64, rate=0.1),
    ]
    assert setting_differences(models) == {"depth": [2, 4, "?"]}


ROWS = [
    {
        "prompts/accuracy/mean": accuracy,
        "prompts/accuracy/colour": accuracy / 2,
        "prompts/ceiling/mean": 0.99,
        "composition/low/mean": accuracy - 0.1,
        "distances/value/frechet_scenes_judge": 100 * accuracy,
        "distances/value/recall_scenes_judge": accuracy,
        "clip_score/drawn/net": accuracy,
        "clip_score/drawn/standard_error_net": accuracy,
        "validation/loss": accuracy,
        "validation/loss_t_0.05": accuracy,
    }
    for accuracy in (0.8, 0.9)
]


def test_summaries_show_means_that_differ_and_know_what_is_better():
    shown = headlines(ROWS)
    assert {headline.name: headline.better for headline in shown} == {
        "prompts/accuracy/mean": "higher",
        "distances/value/frechet_scenes_judge": "lower",
        "distances/value/recall_scenes_judge": "higher",
        "clip_score/drawn/net": "higher",
        "validation/loss": "lower",
    }
    assert constants(ROWS) == {"prompts/ceiling/mean": 0.99} and constants(ROWS[:1]) == {}
    assert frechet_of(list(ROWS[0])) == "distances/value/frechet_scenes_judge"
    assert frechet_of(["distances/value/frechet_a", "distances/value/fid"]).endswith("fid")
    assert accuracy_of(list(ROWS[0])) == "prompts/accuracy/mean"
    assert frechet_of(["prompts/accuracy/mean"]) is None is accuracy_of(["validation/loss"])
    assert (
        Headline("distances/value/frechet_scenes_judge").words == "Fréchet distance (scenes judge)"
    )


def test_values_that_are_missing_or_not_finite_are_never_the_best():
    column = Headline("prompts/accuracy/mean")
    assert column.best([None, float("nan"), 0.5, 0.5]) == [2, 3]
    assert column.best([None, float("nan")]) == [] == Headline("details_of/x").best([1.0, 2.0])
    lines = value_table(["m"], [["a"], ["b"]], [column], [{}, {column.name: 0.5}])
    assert lines[2:] == ["| a |  |", "| b | **0.5000** |"]
