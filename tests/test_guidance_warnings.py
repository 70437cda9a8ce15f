"""Guidance out of range, and pictures that are burnt."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from pinxit.cli.arguments import parse
from pinxit.config import UsageError
from pinxit.guidance_warnings import Exposure, Usual, burnt, out_of_range, saturated, usual_of
from pinxit.sampling import Sampling
from pinxit.train.settings import TrainConfig

USUAL = Usual(std=0.9, saturated=0.05)
DETAILS = {"probe": {"latents/std": 0.9, "latents/saturated": 0.05}}


@pytest.mark.parametrize("scale", [1, 1.5, 4, 7.5, 20])
def test_usual_scales_are_left_in_peace(scale: float):
    assert out_of_range(scale) is None


@pytest.mark.parametrize(
    ("scale", "says"),
    [(0, "the prompt is ignored"), (0.5, "below 1"), (30, "oversaturates colours")],
)
def test_unusual_scales_are_told_of(scale: float, says: str):
    assert says in (out_of_range(scale) or "")


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_impossible_scales_are_refused(scale: float):
    with pytest.raises(UsageError, match="guidance_scale"):
        Sampling(guidance_scale=scale)
    with pytest.raises(ValueError, match=r"sampling\.guidance_scale"):
        parse(TrainConfig, ["--sampling.guidance_scale", str(scale)], default=TrainConfig())


def test_burnt_pictures_are_told_with_figures():
    assert burnt(scale=7, usual=USUAL, std=1.2, share=0.2) is None
    said = burnt(scale=15, usual=USUAL, std=1.9, share=0.6)
    assert said and "1.90 (in training 0.90)" in said and "60%" in said and "try 1.5 to 7.5" in said
    assert burnt(scale=1, usual=USUAL, std=3.0, share=0.9) is None, "no guidance, not its fault"
    assert burnt(scale=15, usual=None, std=3.0, share=0.9) is None, "nothing to compare with"
    assert "nan" in (burnt(scale=5, usual=USUAL, std=float("nan")) or "")


def test_what_is_known_of_the_training_data():
    assert usual_of(DETAILS) == USUAL
    assert usual_of({}) is None and usual_of({"probe": {}}) is None


def test_exposure_looks_at_whatever_is_drawn():
    white = np.full((4, 4, 3), 255, np.uint8)
    assert saturated(white) == 1 and saturated(white // 2) == 0
    exposure = Exposure(9.0, DETAILS)
    exposure.see(np.zeros((2, 4, 4, 4)), [Image.fromarray(white), white])
    with pytest.warns(UserWarning, match=r"100% of the colour values.*guidance_scale is 9"):
        exposure.warn()
    quiet = Exposure(9.0, DETAILS)
    quiet.see(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), [white // 2])
    quiet.see(np.zeros((1, 4, 4, 4)), [np.zeros((4, 4, 4), np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.warn()
