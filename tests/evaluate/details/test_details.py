"""The figures of details and of variety move when details go, in the order that the eye sees."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import degraded_sets as sets
import numpy as np
import pytest

from pinxit import load_checkpoint
from pinxit.config import UsageError
from pinxit.data.scenes.drawing import render
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.details.catalogue import COUNTS
from pinxit.evaluate.details.counts import ABSENT, SceneDetails
from pinxit.evaluate.details.renders import SEEDS_PER_PROMPT
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.scene_details import details_in_words, wasserstein
from pinxit.evaluate.variety import deviation, pairwise, variety_in_words
from pinxit.models.transformer import preset
from pinxit.pipeline import TextToImage

PROMPTS, VARIETY_PROMPTS = 48, 4


class Blind(TextToImage):
    """A model that cannot draw; tests put pictures in the place of its own."""

    def __init__(self) -> None:
        self.autoencoder: Any = SimpleNamespace(params=None)
        self.params, self.image_size, self.name = None, 64, "blind"
        self.config = preset("debug", in_channels=3, context_dim=1)


class Pixels:
    """Stands in for a network, whose features are averages of eight pixels squared."""

    name, width = "pixels", 192

    def about(self):
        return {"name": self.name}

    def __call__(self, pictures, prompts):
        blocks = np.stack(pictures).reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return blocks.reshape(len(pictures), -1).astype(np.float32)


@pytest.fixture(scope="module")
def context() -> EvaluationContext:
    context = EvaluationContext(
        Blind(),
        judge=load_judge(),
        prompts=PROMPTS,
        variety_prompts=VARIETY_PROMPTS,
        networks=[Pixels()],
    )
    return sets.in_memory(context)


@pytest.fixture(scope="module", autouse=True)
def few_are_enough():
    """Lists details that few of the few prompts show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pinxit.evaluate.scene_details.LEAST_PICTURES", 3)
        yield


def details_of(context: EvaluationContext, images: np.ndarray, name: str) -> dict[str, float]:
    return measure(EVALUATORS["details"], sets.with_drawn(context, images, name))


def variety_of(context: EvaluationContext, images: np.ndarray, name: str) -> dict[str, float]:
    return measure(EVALUATORS["variety"], sets.with_seeds(context, images, name))


@pytest.fixture(scope="module")
def table(context) -> dict[str, dict[str, float]]:
    """The values of details for each degraded set."""
    real = sets.rendered(context.prompted)
    pictures = {
        "real": real,
        "blurred": sets.blurred(real),
        "repeated": sets.repeated(real),
        "half_missing": sets.half_missing(context.prompted),
    }
    return {name: details_of(context, images, name) for name, images in pictures.items()}


def test_the_mean_distance_orders_the_sets_as_the_eye_does(table):
    distances = [table[name]["details/distance/mean"] for name in table]
    real, blurred, repeated, half_missing = distances
    assert real < 2 * table["real"]["details/noise/mean"] < 1
    assert 3 * real < blurred < half_missing < repeated


def test_missing_details_are_counted(table):
    """Half of the pictures have no stars, caps, flakes: the means are half of those of renders."""
    for name in ("mountain_peaks", "clouds", "rain_streaks", "stars"):
        if f"details/drawn/{name}" in table["half_missing"]:
            drawn, real = (table["half_missing"][f"details/{c}/{name}"] for c in ("drawn", "real"))
            assert 0.2 * real < drawn < 0.8 * real, name
            assert table["half_missing"][f"details/distance/{name}"] > 1.5
    assert "details/distance/clouds" in table["half_missing"]


def test_blur_is_seen_by_edges_and_not_by_the_number_of_suns(table):
    for name in ("gradient", "laplacian", "fine_texture", "colours"):
        blurred, real = (table[key][f"details/distance/{name}"] for key in ("blurred", "real"))
        assert blurred > max(0.4, 4 * real), name
    assert table["blurred"]["details/distance/suns_and_moons"] < 0.5


def test_the_line_names_the_worst_detail(table):
    line = details_in_words(table["half_missing"])
    assert line.startswith("details differ from renders by 3.") and "most in " in line


def test_a_detail_that_few_prompts_show_is_left_out(context, table, monkeypatch):
    monkeypatch.setattr("pinxit.evaluate.scene_details.LEAST_PICTURES", 8)
    values = details_of(context, sets.rendered(context.prompted), "few")
    names = {name.rpartition("/")[2] for name in values}
    assert "stars" not in names and {"gradient", "mean"} < names
    assert len(names) < len(COUNTS) + 1


def test_without_a_judge_or_prompts_nothing_is_measured(context):
    for name in ("details", "variety"):
        for other in (
            replace(context, judge=None),
            replace(context, prompts=0, variety_prompts=0),
        ):
            assert measure(EVALUATORS[name], other) == {}


def test_renders_have_the_variety_of_renders(context):
    sides = context.seed_sets
    numbers = [number for number in sides.numbers for _ in range(SEEDS_PER_PROMPT)]
    real = np.stack(
        [
            render(sides.scenes.scene(n), seed=9000 + i % SEEDS_PER_PROMPT, index=n)
            for i, n in enumerate(numbers)
        ]
    )
    other = variety_of(context, real, "other")
    one_each = variety_of(context, sets.repeated(real, SEEDS_PER_PROMPT), "repeated")
    few = variety_of(context, sets.few_modes(sides), "few_modes")
    ratios = [name for name in other if "/ratio/" in name]
    assert {"pixels", "star_positions", "peak_positions", "sun_or_moon", "thing_position"} == {
        name.rpartition("/")[2] for name in ratios
    }
    for name in ratios:
        assert 0.5 < other[name] < 2 and one_each[name] == 0, name
    assert 0.8 < other["variety/ratio/pixels"] < 1.2
    sun = "variety/ratio/sun_or_moon"
    assert few[sun] < 0.5 * other[sun]
    line = variety_in_words(one_each)
    assert line.startswith("variety over seeds is 0.00 of that of renders (pixels), least in ")


def test_distances_and_spreads_by_hand():
    assert wasserstein([0, 0, 4], [1, 5, 0]) == pytest.approx(2 / 3)
    assert pairwise(np.array([[0, 0], [3, 4], [0, 0]], np.float32)) == pytest.approx(10 / 3)
    rows = np.full((4, SceneDetails().width), ABSENT, np.float32)
    column = SceneDetails.names.index("disc_x")
    assert deviation(rows, ["disc_x"]) == 0
    rows[:2, column] = 10, 14
    assert deviation(rows, ["disc_x"]) == pytest.approx(np.std([10, 14], ddof=1))
    rows[1, column] = ABSENT
    assert deviation(rows, ["disc_x"]) == 0


def test_the_prompts_of_variety_show_each_detail(context):
    sides = replace(context, variety_prompts=8).seed_sets
    assert len(set(sides.numbers)) == 8
    assert len(sides.real) == len(sides.drawn) == 64
    assert sides.drawn.seeds[:9] == (0, 1, 2, 3, 4, 5, 6, 7, 0)
    assert sides.drawn.prompts == sides.real.prompts


@pytest.mark.parametrize("count", [-1, 129])
def test_impossible_numbers_of_prompts_are_refused(context, count):
    with pytest.raises(UsageError, match="variety_prompts"):
        replace(context, variety_prompts=count)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the pictures look overexposed")
def test_each_figure_moves_with_the_steps_of_the_shipped_model():
    judge = load_judge()
    context = EvaluationContext(load_checkpoint(), judge=judge, prompts=192, variety_prompts=8)
    steps = (1, 2, 4, 16)
    each = [replace(context, sampling={"steps": count}) for count in steps]
    details = [measure(EVALUATORS["details"], one) for one in each]
    means = [values["details/distance/mean"] for values in details]
    assert (
        means == sorted(means, reverse=True) and means[-1] > 3 * details[-1]["details/noise/mean"]
    )
    real = sets.rendered(context.prompted)
    others = [real, sets.blurred(real), sets.half_missing(context.prompted)]
    sharp, blurred, half_missing = (
        details_of(context, images, f"other {i}")["details/distance/mean"]
        for i, images in enumerate(others)
    )
    order = [sharp, means[3], blurred, half_missing, means[1], means[0]]
    assert order == sorted(order), "renders, 16 steps, blurred, half missing, 2 steps, 1 step"
    stars = [values["details/drawn/stars"] for values in details[1:]]
    assert stars == sorted(stars) and stars[0] < 0.2 * details[0]["details/real/stars"]

    variety = [measure(EVALUATORS["variety"], one) for one in each[1:]]
    for name in ("star_positions", "peak_positions", "scenes_judge"):
        ratios = [values[f"variety/ratio/{name}"] for values in variety]
        assert ratios == sorted(ratios), name
    assert variety[0]["variety/ratio/star_positions"] < 0.3

    accuracy = [measure(EVALUATORS["prompt_accuracy"], one) for one in each[1:]]
    ends = [values["prompts/accuracy/mean"] for values in (accuracy[0], accuracy[-1])]
    assert abs(ends[1] - ends[0]) < 0.02, "the judge sees little of it"
