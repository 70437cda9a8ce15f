"""The identity of a set of pictures changes with each thing that they depend on, and no other."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from toy_pipeline import Doubler, config, toy_model

from pinxit.arrays import Example
from pinxit.evaluate.picture_sets import DrawnPictures, RealPictures, identity
from pinxit.sampling import Sampling

PROMPTS, SEEDS = ("a red house", "a blue tent"), (0, 1)


MODEL = functools.cache(toy_model)


def changed(**attributes):
    """A copy of the toy model with other attributes."""
    other = MODEL().with_params(MODEL().params)
    vars(other).update(attributes)
    return other


def drawn(**changes) -> str:
    """The identity of a set of pictures of the toy model."""
    settings = {"model": MODEL(), "prompts": PROMPTS, "seeds": SEEDS} | changes
    return identity(DrawnPictures(**settings).about())


def other_params():
    return MODEL().with_params(jax.tree.map(lambda leaf: leaf * 1.01, MODEL().params))


class Tripler(Doubler):
    """Another autoencoder, whose weights differ."""

    def __init__(self) -> None:
        self.params = {"scale": np.ones(3, np.float32)}


CHANGES = {
    "the parameters": lambda: {"model": other_params()},
    "the dtype": lambda: {"model": changed(config=replace(config(), dtype="bfloat16"))},
    "the autoencoder": lambda: {"model": changed(autoencoder=Tripler())},
    "the model's steps": lambda: {"model": changed(sampling=Sampling(steps=3, guidance_scale=2.0))},
    "the steps": lambda: {"sampling": {"steps": 3}},
    "the guidance": lambda: {"sampling": {"guidance_scale": 3.0}},
    "the solver": lambda: {"sampling": {"solver": "heun"}},
    "zero init": lambda: {"sampling": {"zero_init": 0.1}},
    "a prompt": lambda: {"prompts": ("a red house", "a blue tent at dawn")},
    "the order of prompts": lambda: {"prompts": PROMPTS[::-1]},
    "a seed": lambda: {"seeds": (0, 2)},
    "the count": lambda: {"prompts": PROMPTS[:1], "seeds": SEEDS[:1]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_identity_of_drawn_pictures_changes_with(change: str):
    assert drawn(**CHANGES[change]()) != drawn()


def test_the_identity_of_drawn_pictures_does_not_change_otherwise():
    same = ({"model": changed(name="another")}, {"sampling": {"steps": 2}}, {"title": "other"})
    assert {drawn(**changes) for changes in same} == {drawn()}
    assert drawn(batch_size=7) == drawn()  # a CPU draws one by one


def examples(count: int = 3, **of_last) -> list[Example]:
    images = [np.full((4, 4, 3), 9 * i, np.uint8) for i in range(count)]
    rows = [Example(image, f"row {i}") for i, image in enumerate(images)]
    return [*rows[:-1], replace(rows[-1], **of_last)]


def real(rows: list[Example]) -> str:
    return identity(RealPictures(rows).about())


def test_the_identity_of_real_pictures_is_that_of_their_pixels_and_prompts():
    changed = examples()[-1].image.copy()
    changed[3, 3, 2] += 1
    assert real(examples()) == real(examples())
    others = [examples(image=changed), examples(caption="other"), examples(2), examples()[::-1]]
    others += [examples(image=changed.reshape(2, 8, 3))]
    assert len({real(examples()), *map(real, others)}) == 6
    pictures = RealPictures(examples()).pictures(range(1, 3))
    np.testing.assert_array_equal(pictures[0], examples()[1].image)


def test_pictures_have_as_many_seeds_as_prompts():
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        drawn(seeds=(0,))


def test_pictures_are_drawn_from_their_own_prompts_and_seeds():
    pictures = DrawnPictures(MODEL(), PROMPTS, (5, 9))
    images = pictures.pictures(range(2))
    expected = MODEL().generate(PROMPTS[1], seed=9, output_type="np")
    np.testing.assert_array_equal(images[1], np.asarray(expected).reshape(images[1].shape))
    np.testing.assert_array_equal(pictures.pictures(range(1, 2))[0], images[1])
