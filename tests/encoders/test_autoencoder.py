"""Normalised latents: scale, shift, sampling, the identity, and loading by name."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from pinxit.arrays import Autoencoder, LatentStats
from pinxit.encoders import autoencoder, vae
from pinxit.encoders.autoencoder import IdentityAutoencoder, KLAutoencoder
from pinxit.encoders.vae import AutoencoderKLConfig

CONFIG = AutoencoderKLConfig(
    block_out_channels=(4, 8), norm_num_groups=2, scaling_factor=0.5, shift_factor=0.25
)
encode_moments = jax.jit(vae.encode_moments, static_argnums=1)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return KLAutoencoder(vae.init_vae(CONFIG, jax.random.key(0)), CONFIG)


def test_latents_are_scaled_and_shifted(model):
    assert isinstance(model, Autoencoder)
    assert model.stats == LatentStats(scale=0.5, shift=0.25, channels=4, downsample=2)
    raw, _ = encode_moments(model.params, CONFIG, IMAGES)
    latents = jax.jit(model.encode)(model.params, IMAGES)
    np.testing.assert_allclose(latents, (raw - 0.25) * 0.5, atol=1e-6)
    decoded = jax.jit(vae.decode, static_argnums=1)(model.params, CONFIG, raw)
    again = jax.jit(model.decode)(model.params, latents)
    np.testing.assert_allclose(again, decoded, atol=1e-4)


def test_a_key_gives_a_sample(model):
    mean, logvar = encode_moments(model.params, CONFIG, IMAGES)
    sample = jax.jit(model.encode)(model.params, IMAGES, key=jax.random.key(1))
    noise = (sample / 0.5 + 0.25 - mean) / np.exp(logvar / 2)
    expected = jax.random.normal(jax.random.key(1), mean.shape)
    np.testing.assert_allclose(noise, expected, atol=1e-4)


def test_identity():
    model = autoencoder.load_autoencoder("none")
    assert isinstance(model, IdentityAutoencoder)
    assert isinstance(model, Autoencoder)
    assert model.stats == LatentStats(channels=3, downsample=1)
    np.testing.assert_array_equal(model.encode(model.params, IMAGES), IMAGES)
    np.testing.assert_array_equal(model.decode(model.params, IMAGES), IMAGES)


@pytest.mark.parametrize("folder", ["", "vae"])
def test_load_a_directory(model, folder, tmp_path):
    vae.save_vae(tmp_path / folder, model.params, CONFIG)
    loaded = autoencoder.load_autoencoder(tmp_path)
    assert loaded.config == replace(CONFIG)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'sdd' to load; known: tiny, sd, none, a directory"):
        autoencoder.load_autoencoder("sdd")
