"""The deep compression autoencoder as `Autoencoder`: loading, scale, tiles, damaged files."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dc_ae
from safetensors.numpy import load_file, save_file

from pinxit.arrays import Autoencoder, LatentStats
from pinxit.config import UsageError
from pinxit.encoders import autoencoder, dc_ae, vae
from pinxit.encoders.abstract_autoencoder import (
    SANA_DC_AE,
    abstract_autoencoder,
    described_autoencoder,
)
from pinxit.encoders.autoencoder import DCAutoencoder, downsample_of, load_autoencoder
from pinxit.encoders.fingerprint import encoder_fingerprints, scaling_of
from pinxit.encoders.text_encoder_catalogue import load_text_encoder

CONFIG = replace(
    tiny_dc_ae.CONFIG,
    decoder_norm_types=("batch_norm", "rms_norm", "rms_norm"),
    decoder_act_fns=("relu", "silu", "silu"),
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> DCAutoencoder:
    return DCAutoencoder(dc_ae.init_dc_ae(CONFIG, jax.random.key(0)), CONFIG)


@pytest.fixture
def directory(model, tmp_path):
    dc_ae.save_dc_ae(tmp_path / "vae", model.params, CONFIG)
    return tmp_path / "vae"


def test_latents_are_scaled(model):
    assert isinstance(model, Autoencoder)
    assert model.stats == LatentStats(scale=0.41407, shift=0.0, channels=4, downsample=4)
    raw = jax.jit(dc_ae.encode_images, static_argnums=1)(model.params, CONFIG, IMAGES)
    latents = jax.jit(model.encode)(model.params, IMAGES)
    np.testing.assert_allclose(latents, raw * 0.41407, atol=1e-6)
    decoded = jax.jit(dc_ae.decode_raw, static_argnums=1)(model.params, CONFIG, raw)
    np.testing.assert_allclose(jax.jit(model.decode)(model.params, latents), decoded, atol=1e-4)


def test_a_key_has_no_effect(model):
    encode = jax.jit(model.encode)
    plain = encode(model.params, IMAGES)
    np.testing.assert_array_equal(encode(model.params, IMAGES, key=jax.random.key(1)), plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_from_a_directory_or_a_pipeline(model, directory, dtype):
    for source in (directory, directory.parent, str(directory)):
        loaded = load_autoencoder(source, dtype=dtype)
        assert isinstance(loaded, DCAutoencoder) and loaded.config == CONFIG
        planned = abstract_autoencoder(str(source), dtype=dtype)
        assert loaded.stats == planned.stats and downsample_of(source) == 4
        shapes = [
            jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one.params)
            for one in (loaded, planned)
        ]
        assert shapes[0] == shapes[1]
    assert described_autoencoder(str(directory)) == CONFIG.to_json()
    latents = jax.jit(loaded.encode)(loaded.params, IMAGES)
    decoded = jax.jit(loaded.decode)(loaded.params, latents)
    assert latents.dtype == decoded.dtype == jnp.float32


def test_the_published_configs_are_known():
    for name in ("dc_ae", "mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers@main"):
        planned = abstract_autoencoder(name)
        assert planned.stats == LatentStats(scale=0.41407, shift=0.0, channels=32, downsample=32)
        assert described_autoencoder(name) == SANA_DC_AE.to_json()


@pytest.mark.slow
def test_slices_and_one_tile_are_the_whole(model):
    latents = model.encode(model.params, IMAGES, tile=None)
    decoded = model.decode(model.params, latents, tile=None)
    for parts in ({"sliced": True}, {"tile": 6}, {"tile": 9, "overlap": 0}, {}):
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(model.encode(model.params, IMAGES, **parts), latents, **close)
        np.testing.assert_allclose(model.decode(model.params, latents, **parts), decoded, **close)
    tiled = model.decode(model.params, latents, tile=4, overlap=2)
    assert tiled.shape == decoded.shape and np.isfinite(tiled).all()


def test_large_images_are_tiled_unless_told_otherwise(monkeypatch):
    """1,024 pixels are the largest image that is processed whole, at any factor."""
    tiles = []

    def map_tiles(network, grid, *, tile, overlap, inner, outer):
        tiles.append((tile, overlap))
        return network(grid)

    monkeypatch.setattr(autoencoder, "map_tiles", map_tiles)
    large = abstract_autoencoder("dc_ae")
    for cells, expected in ((32, []), (33, [(24, 6)])):
        latents = jax.ShapeDtypeStruct((1, 1, cells, 32), jnp.float32)
        images = jax.eval_shape(large.decode, large.params, latents)
        assert images.shape == (1, 32, 32 * cells, 3)
        jax.eval_shape(large.encode, large.params, images)
        assert tiles == expected * 2


def test_sides_must_divide(model):
    with pytest.raises(UsageError, match=r"image size 16x22 is not divisible by .* factor 4"):
        model.encode(model.params, np.zeros((1, 16, 22, 3), np.float32))


def test_fingerprints_depend_on_every_block_and_on_the_scale(model, bundle):
    text = load_text_encoder(str(bundle))
    first = encoder_fingerprints(text, model)
    assert scaling_of(model) == "scale 0.41407, shift 0.0"
    other = jax.tree.map(lambda leaf: leaf, model.params)
    other["decoder"]["up_blocks"]["0"]["1"]["norm"]["running_var"] = jnp.full(4, 2.0)
    assert encoder_fingerprints(text, DCAutoencoder(other, CONFIG))["vae"] != first["vae"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "AutoencoderTiny"}, "a 'AutoencoderTiny'; known: AutoencoderKL, Auto"),
        ({"_class_name": ["AutoencoderDC"]}, "known: AutoencoderKL, AutoencoderDC"),
        ({"_class_name": "DCAE"}, "describes a 'DCAE'; known: AutoencoderKL, AutoencoderDC"),
        ({"scaling_factor": float("nan")}, "scaling_factor is nan; it must be more than 0"),
        ({"decoder_norm_types": "layer_norm"}, "decoder_norm_types has 'layer_norm'; known: rms"),
    ],
)
def test_a_bad_config_is_refused_in_one_line(directory, change, words):
    value = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(value | change))
    for load in (load_autoencoder, downsample_of, abstract_autoencoder):
        with pytest.raises(UsageError, match=words) as error:
            load(str(directory))
        assert str(error.value).startswith(f"{directory / 'config.json'}: ")
        assert "\n" not in str(error.value)


def test_damaged_weights_are_refused(directory):
    path = directory / vae.WEIGHTS
    tensors = load_file(path)
    name = "decoder.up_blocks.0.1.norm.running_var"
    for damaged, words in (
        ({k: v for k, v in tensors.items() if k != name}, f"missing {name}"),
        (tensors | {name: tensors[name][:2]}, rf"{name} has shape \(2,\), expected \(4,\)"),
        (tensors | {"decoder.extra": tensors[name]}, "unexpected decoder.extra"),
        (tensors | {name: np.full_like(tensors[name], np.nan)}, f"damaged: {name} has values"),
    ):
        save_file(damaged, path)
        with pytest.raises(UsageError, match=words) as error:
            load_autoencoder(directory)
        assert "\n" not in str(error.value)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=vae.WEIGHTS) as error:
        load_autoencoder(directory)
    assert "\n" not in str(error.value)


def test_the_weights_of_the_other_kind_are_refused(directory, bundle):
    (directory / vae.WEIGHTS).write_bytes((bundle / "vae" / vae.WEIGHTS).read_bytes())
    with pytest.raises(UsageError, match=r"tensors do not fit the config: missing decoder\."):
        load_autoencoder(directory)


def test_the_original_layout_is_recognised(directory):
    names = ("encoder.project_in.conv.weight", "decoder.stages.0.op_list.0.main.conv1.conv.weight")
    save_file({name: np.zeros(3, np.float32) for name in names}, directory / vae.WEIGHTS)
    (directory / "config.json").write_text('{"name": "dc-ae-f32c32-sana-1.0"}')
    with pytest.raises(UsageError, match=r"DC-AE's original layout.*name ends in -diffusers"):
        load_autoencoder(directory)


def test_pickles_are_refused_unopened(directory):
    (directory / vae.WEIGHTS).unlink()
    (directory / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    for load in (load_autoencoder, downsample_of):
        with pytest.raises(UsageError, match=r"pickled weights.*run code when opened"):
            load(directory)
