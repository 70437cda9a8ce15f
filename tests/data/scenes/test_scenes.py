"""Scenes are deterministic by index, state what they show, and keep held-out combinations apart."""

import hashlib

import numpy as np
import pytest

from pinxit.data.scenes.attributes import (
    ATTRIBUTES,
    COLOURS,
    HEADS,
    HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES,
    KINDS,
    PLACES,
    Scene,
    Thing,
    sample_scene,
    score,
)
from pinxit.data.scenes.captions import caption
from pinxit.data.scenes.dataset import Scenes
from pinxit.data.scenes.drawing import render

GOLDEN_MEANS = [42.6, 139.3, 61.5, 170.5]
GOLDEN_CAPTIONS = "e4c1f4604c5eb6dc"
HOUSE = Scene("night", "hills", "clear", "full moon", (Thing("house", "red", "small", "left"),))


def test_rows_depend_on_their_index_alone():
    forwards, backwards = Scenes(length=20, seed=3), Scenes(length=1000, seed=3)
    for i in (7, 0, 19):
        a, b = forwards[i], backwards[i]
        np.testing.assert_array_equal(a.image, b.image)
        assert (a.caption, a.attributes) == (b.caption, b.attributes)


def test_seeds_and_rows_differ():
    rows = [Scenes(seed=seed)[i] for seed in (0, 1) for i in range(10)]
    assert len({row.image.tobytes() for row in rows}) == 20
    assert len({row.caption for row in rows}) >= 18


def test_the_first_pictures_are_those_of_the_bundle():
    """The bundle was trained on these very pictures; a changed drawing needs a new one."""
    means = [round(float(Scenes(seed=0)[i].image.mean()), 1) for i in range(4)]
    assert means == GOLDEN_MEANS


def test_the_first_captions_are_those_of_the_bundle():
    captions = "\n".join(Scenes(seed=0).caption(i) for i in range(2000))
    assert hashlib.sha256(captions.encode()).hexdigest()[:16] == GOLDEN_CAPTIONS


def test_weighted_draws_are_those_of_numpy():
    """The bundle was trained on these draws, so a faster one must return the same."""
    for index in range(200):
        rng = np.random.default_rng([0, index, 0])
        scene = sample_scene(0, index, split="any")
        assert scene.time == HEADS["time"][rng.choice(4)]
        assert scene.backdrop == HEADS["backdrop"][rng.choice(5)]
        weather = rng.choice(5, p=(0.4, 0.2, 0.14, 0.14, 0.12))
        assert scene.weather == HEADS["weather"][weather]


def test_training_shows_no_held_out_combination():
    train = [sample_scene(0, i, split="train") for i in range(600)]
    shown = {(thing.colour, thing.kind) for scene in train for thing in scene.things}
    assert not shown & HELD_OUT_PAIRS
    assert len(shown) == len(COLOURS) * len(KINDS) - len(HELD_OUT_PAIRS)
    triples = {(s.time, s.backdrop, thing.kind) for s in train for thing in s.things}
    assert not triples & HELD_OUT_TRIPLES


def test_every_held_out_scene_shows_one_and_every_value_is_trained_on():
    assert all(sample_scene(0, i, split="heldout").held_out for i in range(200))
    labels = [sample_scene(0, i, split="train").labels() for i in range(600)]
    for head, values in HEADS.items():
        assert {row[head] for row in labels if head in row} == set(values), head


@pytest.mark.parametrize("size", [32, 64, 96])
def test_pictures_have_the_size_asked_for(size):
    image = render(HOUSE, seed=0, size=size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_pictures_show_what_the_scene_states():
    """A red house is where the red is; the same scene by day is brighter."""
    night = render(HOUSE, seed=0).astype(int)
    redness = night[..., 0] - night[..., 1:].max(-1)
    assert redness[:, :26].max() > 60
    assert redness[:, 26:].max() < 25
    day = Scene("day", "hills", "clear", "none", HOUSE.things)
    assert render(day, seed=0).mean() > night.mean() + 50


def test_edges_are_antialiased():
    moon = Scene("night", "hills", "clear", "full moon")
    assert len({tuple(pixel) for pixel in render(moon, seed=1).reshape(-1, 3)}) > 100


def test_full_captions_state_every_fact():
    scene = Scene("dawn", "sea", "fog", "none", (Thing("balloon", "blue", "large", "right"),))
    for i in range(50):
        words = caption(scene, seed=0, index=i, full=True).lower()
        assert "blue" in words and "balloon" in words and "right" in words
        assert any(word in words for word in ("large", "big", "huge"))
        assert "fog" in words or "mist" in words
        assert any(word in words for word in ("dawn", "sunrise", "morning"))
        assert any(word in words for word in ("sea", "ocean", "beach"))


def test_captions_vary_and_sometimes_leave_facts_out():
    captions = {caption(HOUSE, seed=0, index=i) for i in range(200)}
    assert len(captions) > 150
    assert any("moon" not in text for text in captions)
    assert max(len(text.split()) for text in captions) <= 38


def test_a_beautiful_sunset_over_mountains_is_one_of_the_captions():
    scene = Scene("sunset", "mountains", "clear", "none")
    captions = {caption(scene, seed=0, index=i).rstrip(".").lower() for i in range(2000)}
    assert "a beautiful sunset over mountains" in captions


def test_score_of_the_truth_is_all_right():
    for i in range(100):
        scene = sample_scene(5, i, split="any")
        answer = {head: values[0] for head, values in HEADS.items()} | scene.labels()
        assert all(right for _, right in score(scene, answer))
        assert {name for name, _ in score(scene, answer)} <= set(ATTRIBUTES)


def test_score_counts_a_thing_only_at_its_place():
    answer = {head: values[0] for head, values in HEADS.items()} | HOUSE.labels()
    moved = answer | {"left.object": "none", "right.object": "house"}
    wrong = {name for name, right in score(HOUSE, moved) if not right}
    assert wrong == {"object", "place"}


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="unknown split 'test'; known: train, heldout, any"):
        Scenes(split="test")
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        Scenes(length=0)
    with pytest.raises(ValueError, match="image size 8 is too small"):
        render(HOUSE, seed=0, size=8)
    with pytest.raises(IndexError, match="scene 5 of 5"):
        Scenes(length=5)[5]
    assert set(PLACES) == {"left", "middle", "right"}
