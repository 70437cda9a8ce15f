"""The effect of captions: found where there is one, zero where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Example
from pinxit.data.mock import MockImages
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.evaluate.caption_effect import FEWEST, caption_effect, shuffled
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.validation_loss import validation_loss
from pinxit.models.transformer import init_params, preset
from pinxit.pipeline import TextToImage


@pytest.fixture(scope="module")
def model(bundle: Path) -> TextToImage:
    """Random parameters, gates and last layer included: its output depends on everything."""
    autoencoder, text_encoder = load_autoencoder(bundle), load_text_encoder(bundle)
    config = preset(
        "debug",
        hidden_size=16,
        depth=1,
        num_heads=2,
        in_channels=autoencoder.stats.channels,
        context_dim=text_encoder.width,
    )
    leaves, tree = jax.tree.flatten(init_params(config, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys)]  # noqa: B905
    params = jax.tree.unflatten(tree, noisy)
    return TextToImage(
        params, config, text_encoder=text_encoder, autoencoder=autoencoder, image_size=16
    )


def effect(model: TextToImage, examples: Any, **more: Any) -> dict[str, float]:
    return dict(caption_effect(EvaluationContext(model, examples, batch_size=8), **more))


def test_the_own_captions_loss_is_the_validation_loss(model: TextToImage):
    examples = MockImages(20, 16, seed=0)
    found = effect(model, examples, rows=20)
    expected = dict(validation_loss(EvaluationContext(model, examples, batch_size=8)))
    assert found["conditioning/loss"] == pytest.approx(expected["validation/loss"], rel=1e-5)
    assert found["conditioning/loss_shuffled"] != found["conditioning/loss"]
    assert found["conditioning/loss_null"] != found["conditioning/loss"]
    assert found["conditioning/gain_error"] > 0
    assert 0.5 < found["conditioning/changed"] <= 1


def test_a_model_that_sees_no_text_gains_exactly_nothing(model: TextToImage, monkeypatch):
    encode = TextToImage.encode

    def masked(self: TextToImage, captions: Any) -> Any:
        encoded = encode(self, captions)
        return dataclasses.replace(encoded, mask=jnp.zeros_like(encoded.mask))

    monkeypatch.setattr(TextToImage, "encode", masked)
    found = effect(model, MockImages(16, 16, seed=0))
    assert found["conditioning/gain"] == 0 and found["conditioning/gain_error"] == 0
    assert found["conditioning/changed"] > 0.5


def test_captions_that_are_all_the_same_change_nothing(model: TextToImage):
    examples = [dataclasses.replace(MockImages(8, 16, seed=0)[i], caption="red") for i in range(8)]
    found = effect(model, examples)
    assert found["conditioning/changed"] == 0 and found["conditioning/gain"] == 0


def test_images_of_several_shapes(model: TextToImage):
    square, wide = MockImages(6, 16, seed=0), MockImages(6, 32, seed=0)
    mixed = [square[i] if i % 2 else Example(wide[i].image[:16], wide[i].caption) for i in range(6)]
    found = effect(model, mixed)
    assert found["conditioning/loss"] > 0 and found["conditioning/changed"] == 1


def test_too_few_rows_yield_nothing(model: TextToImage):
    rows = [MockImages(FEWEST, 16, seed=0)[i] for i in range(FEWEST)]
    assert effect(model, rows[1:]) == {} and effect(model, rows)


def test_what_the_data_are_like(model: TextToImage):
    white = [Example(np.full((16, 16, 3), 255, np.uint8), f"{i}") for i in range(5)]
    found = effect(model, white)
    assert found["latents/saturated"] == 1.0
    latents = model.autoencoder.encode(model.autoencoder.params, jnp.ones((1, 16, 16, 3)))
    assert found["latents/std"] == pytest.approx(float(jnp.std(latents)), rel=1e-4)


def test_every_row_gets_anothers_caption():
    assert shuffled(["a", "b", "c", "d"]) == ["c", "d", "a", "b"]
    # two halves of equal captions: turned by half, none would change
    assert shuffled(["a", "b", "a", "b"]) == ["b", "a", "b", "a"]
