"""Normalised latents: scale, shift, sampling, the identity, and loading by name."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Autoencoder, LatentStats
from pinxit.encoders import autoencoder, vae
from pinxit.encoders.autoencoder import IdentityAutoencoder, KLAutoencoder
from pinxit.encoders.tiling import tile_starts
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
    decoded = jax.jit(vae.decode_latents, static_argnums=1)(model.params, CONFIG, raw)
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_latents_and_images_keep_the_type_given(model, dtype, tmp_path):
    """Parameters of any type take and give float32."""
    vae.save_vae(tmp_path, model.params, CONFIG)
    loaded = autoencoder.load_autoencoder(tmp_path, dtype=dtype)
    assert loaded.params["encoder"]["conv_in"]["kernel"].dtype == jnp.dtype(dtype)
    latents = jax.jit(loaded.encode)(loaded.params, IMAGES)
    assert latents.dtype == jax.jit(loaded.decode)(loaded.params, latents).dtype == jnp.float32
    expected = jax.jit(model.encode)(model.params, IMAGES)
    tolerance = 1e-6 if dtype == "float32" else 0.03
    assert np.abs(latents - expected).max() <= tolerance * np.abs(expected).max()


def test_every_name_takes_a_type():
    assert autoencoder.load_autoencoder("none", dtype="bfloat16").params == {}
    tiny = autoencoder.load_autoencoder("tiny", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(tiny.params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("name", "repo_id"),
    [
        ("sd", "stabilityai/sd-vae-ft-mse"),
        ("sdxl", "madebyollin/sdxl-vae-fp16-fix"),
        ("dc_ae", "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers"),
    ],
)
def test_names_stand_for_repositories(name, repo_id, model, monkeypatch, tmp_path):
    calls = []

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append(repo_id)
        assert {"config.json", "vae/config.json", f"vae/{vae.WEIGHTS}"} < set(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    vae.save_vae(tmp_path, model.params, CONFIG)
    assert autoencoder.load_autoencoder(name).config == CONFIG
    assert calls == [repo_id]


def test_slices_and_one_tile_are_the_whole(model):
    """A batch of two, one by one or as one tile each, gives what it gives at once."""
    latents = model.encode(model.params, IMAGES, tile=None)
    decoded = model.decode(model.params, latents, tile=None)
    for parts in ({"sliced": True}, {"tile": 4}, {"tile": 9, "overlap": 0}, {}):
        np.testing.assert_allclose(
            model.encode(model.params, IMAGES, **parts), latents, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            model.decode(model.params, latents, **parts), decoded, rtol=1e-4, atol=1e-5
        )


def test_large_grids_are_tiled_unless_told_otherwise(model, monkeypatch):
    tiles = []

    def map_tiles(network, grid, *, tile, overlap, inner, outer):
        tiles.append((tile, overlap))
        return network(grid)

    monkeypatch.setattr(autoencoder, "map_tiles", map_tiles)
    decode, encode = model.decode, model.encode
    for cells, expected in ((128, []), (129, [(96, 24)])):
        latents = jax.ShapeDtypeStruct((1, 2, cells, 4), jnp.float32)
        images = jax.eval_shape(decode, model.params, latents)
        assert images.shape == (1, 4, 2 * cells, 3)
        jax.eval_shape(encode, model.params, images)
        assert tiles == expected * 2
    latents = jax.ShapeDtypeStruct((1, 2, 129, 4), jnp.float32)
    jax.eval_shape(lambda p, x: decode(p, x, tile=None), model.params, latents)
    jax.eval_shape(lambda p, x: decode(p, x, tile=32, overlap=4), model.params, latents)
    assert tiles[2:] == [(32, 4)]


def test_bad_tiles_are_refused(model):
    latents = jnp.zeros((1, 4, 4, 4))
    with pytest.raises(ValueError, match="tile is 4 and overlap is 3 cells"):
        model.decode(model.params, latents, tile=4, overlap=3)


def smooth_and_structured(height: int, width: int) -> np.ndarray:
    """Waves of long period with discs of one colour, the same density everywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 31) + np.cos(y / 47), np.sin((x + y) / 53), np.cos((x - 2 * y) / 71)]
    image = np.stack(waves, axis=-1) / 2
    for row in range(0, height, 64):
        for column in range(0, width, 64):
            dy, dx, radius = rng.uniform(0, 64), rng.uniform(0, 64), rng.uniform(6, 24)
            disc = (y - row - dy) ** 2 + (x - column - dx) ** 2 < radius**2
            image[disc] = rng.uniform(-1, 1, 3)
    return image[None].astype(np.float32)


def test_the_seams_of_tiles_are_invisible():
    """With the bundled autoencoder: 35 dB to the whole, and no steeper across any seam.

    What remains is the drift of the group norms, whose moments are a tile's. (Without blending,
    the middle of a seam is more than twice as steep.)
    """
    tiny = autoencoder.load_autoencoder("tiny")
    images = smooth_and_structured(504, 504)
    encode = jax.jit(tiny.encode, static_argnames=("tile",))
    decode = jax.jit(tiny.decode, static_argnames=("tile",))
    latents = encode(tiny.params, images, tile=None)
    assert np.sqrt(np.mean((encode(tiny.params, images, tile=36) - latents) ** 2)) < 0.05
    whole, tiled = decode(tiny.params, latents, tile=None), decode(tiny.params, latents, tile=36)
    assert tiled.shape == whole.shape == (1, 504, 504, 3)
    assert psnr(tiled, whole) > 35
    lines = seam_lines(tile_starts(63, 36, overlap=9), 36)
    for axis in (1, 2):
        across = [steepness(x, axis=axis, lines=lines) for x in (tiled, whole)]
        assert (across[0] < 1.1 * across[1]).all()


def psnr(ours, theirs) -> float:
    return float(10 * np.log10(4 / np.mean((np.asarray(ours) - np.asarray(theirs)) ** 2)))


def seam_lines(starts: list[int], tile: int, *, pixels: int = 8) -> list[int]:
    """Every line of pixels where a tile's blending begins, ends, or is cut."""
    lines = set()
    for before, after in itertools.pairwise(starts):
        shared = (before + tile - after) * pixels
        lines |= {after * pixels + shared * k // 4 for k in range(5)}
    return sorted(lines)


def steepness(images, *, axis: int, lines: list[int]) -> np.ndarray:
    """Mean difference of neighbours across each line, relative to the same everywhere."""
    steps = np.moveaxis(np.abs(np.diff(np.asarray(images), axis=axis)), axis, 0)
    return steps[np.array(lines) - 1].mean((1, 2, 3)) / steps.mean()


def test_unknown_names_list_the_known():
    message = r"'sdd' is neither a known name .*; valid: tiny, sd, sdxl, dc_ae, none, a directory"
    with pytest.raises(ValueError, match=message):
        autoencoder.load_autoencoder("sdd")
