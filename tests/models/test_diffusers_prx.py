"""The form of diffusers' `PRXTransformer2DModel`: names, shapes, and the way back."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.config import UsageError
from pinxit.models.diffusers_prx import (
    config_of_prx,
    from_prx,
    merges_to,
    prx_config,
    prx_shapes,
    to_prx,
)
from pinxit.models.transformer import TransformerConfig, abstract, apply, init_params

LATENT = TransformerConfig(
    hidden_size=32, depth=3, num_heads=2, context_dim=12, modulation_rank=4, mlp_ratio=2.0
)
PIXEL = dataclasses.replace(
    LATENT, in_channels=3, bottleneck_size=6, resolution_embeds=True, prediction="latents"
)


PER_BLOCK = dataclasses.replace(LATENT, modulation="per_block")


def random_params(config):
    leaves, tree = jax.tree.flatten(init_params(config, jax.random.key(0)))
    rng = np.random.default_rng(1)
    noisy = [x + 0.05 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


def expected_shapes(config):
    d, m = config.hidden_size, config.mlp_hidden
    cells = config.in_channels * config.patch_size**2
    shapes = {
        "txt_in.weight": (d, config.context_dim),
        "time_in.in_layer.weight": (d, 256),
        "time_in.out_layer.weight": (d, d),
        "final_layer.linear.weight": (cells, d),
        "final_layer.adaLN_modulation.1.weight": (2 * d, d),
    }
    if config.bottleneck_size:
        shapes["img_in.0.weight"] = (config.bottleneck_size, cells)
        shapes["img_in.1.weight"] = (d, config.bottleneck_size)
    else:
        shapes["img_in.weight"] = (d, cells)
    if config.resolution_embeds:
        shapes["resolution_embedder.mlp.in_layer.weight"] = (d, 256)
        shapes["resolution_embedder.mlp.out_layer.weight"] = (d, d)
    shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    block = {
        "attention.img_qkv_proj.weight": (3 * d, d),
        "attention.txt_kv_proj.weight": (2 * d, d),
        "attention.to_out.0.weight": (d, d),
        "attention.norm_q.weight": (config.head_dim,),
        "attention.norm_k.weight": (config.head_dim,),
        "attention.norm_added_k.weight": (config.head_dim,),
        "gate_proj.weight": (m, d),
        "up_proj.weight": (m, d),
        "down_proj.weight": (d, m),
        "modulation.lin.weight": (6 * d, d),
        "modulation.lin.bias": (6 * d,),
    }
    for i in range(config.depth):
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


@pytest.mark.parametrize("config", [LATENT, PIXEL, PER_BLOCK], ids=["latent", "pixel", "per_block"])
def test_names_and_shapes_are_those_of_diffusers(config):
    tensors = to_prx(random_params(config), config)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(config)
    assert prx_shapes(config) == expected_shapes(config)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize("config", [LATENT, PIXEL], ids=["latent", "pixel"])
def test_parameters_that_went_out_and_came_back_compute_the_same(config):
    params = random_params(config)
    full = dataclasses.replace(config, modulation_rank=config.hidden_size)
    returned = from_prx(to_prx(params, config), full)
    rng = np.random.default_rng(2)
    x_t = jnp.asarray(rng.normal(size=(2, 8, 6, config.in_channels)), jnp.float32)
    tokens = jnp.asarray(rng.normal(size=(2, 3, config.context_dim)), jnp.float32)
    conditioning = Conditioning(tokens=tokens, mask=jnp.ones((2, 3), bool))
    t = jnp.array([0.3, 0.9])
    before = jax.jit(functools.partial(apply, config))(params, x_t, t, conditioning)
    after = jax.jit(functools.partial(apply, full))(returned, x_t, t, conditioning)
    assert before.std() > 0.05
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_a_rank_too_small_for_the_weights_is_named():
    tensors = to_prx(random_params(LATENT), LATENT)
    with pytest.raises(ValueError, match=r"modulation_rank: 4 cannot hold .* needs \d+"):
        from_prx(tensors, LATENT)


def test_blocks_that_share_their_modulation_need_no_rank():
    config = dataclasses.replace(LATENT, modulation_rank=0)
    params = random_params(config)
    returned = from_prx(to_prx(params, config), config)
    table = params["blocks"]["modulation"]["table"] + params["modulation"]["bias"][None]
    again = returned["blocks"]["modulation"]["table"] + returned["modulation"]["bias"][None]
    np.testing.assert_allclose(again, table, atol=1e-6)
    expected = {k: v for k, v in params["blocks"].items() if k != "modulation"}
    actual = {k: v for k, v in returned["blocks"].items() if k != "modulation"}
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_the_config_is_json_in_the_names_of_diffusers():
    config = json.loads(json.dumps(prx_config(PIXEL)))
    assert config["axes_dim"] == [8, 8]
    assert config["context_in_dim"] == 12
    assert config["bottleneck_size"] == 6
    assert config["resolution_embeds"] is True


@pytest.mark.parametrize("shape", [LATENT, PIXEL], ids=["latent", "pixel"])
def test_maps_per_block_go_out_and_come_back_to_the_bit(shape):
    config = dataclasses.replace(shape, modulation="per_block")
    assert config.modulation_rank == 0
    params = random_params(config)
    assert "modulation" not in params
    assert params["blocks"]["modulation"]["kernel"].shape == (3, 32, 192)
    tensors = to_prx(params, config)
    returned = from_prx(tensors, config)
    jax.tree.map(np.testing.assert_array_equal, returned, jax.tree.map(np.asarray, params))
    again = to_prx(returned, config)
    assert {n: t.tobytes() for n, t in again.items()} == {
        n: t.tobytes() for n, t in tensors.items()
    }


def test_maps_per_block_compute_what_shared_maps_merge_to():
    shared, whole = LATENT, dataclasses.replace(LATENT, modulation="per_block")
    params = random_params(shared)
    rng = np.random.default_rng(2)
    x_t = jnp.asarray(rng.normal(size=(2, 8, 6, 4)), jnp.float32)
    tokens = jnp.asarray(rng.normal(size=(2, 3, 12)), jnp.float32)
    conditioning = Conditioning(tokens=tokens, mask=jnp.ones((2, 3), bool))
    t = jnp.array([0.3, 0.9])
    ours = apply(shared, params, x_t, t, conditioning)
    imported = from_prx(to_prx(params, shared), whole)
    assert jax.tree.map(np.shape, imported) == jax.tree.map(jnp.shape, abstract(whole)[1])
    for scan in (True, False):
        config = dataclasses.replace(whole, scan_blocks=scan)
        theirs = apply(config, imported, x_t, t, conditioning)
        np.testing.assert_allclose(theirs, ours, atol=2e-5)


def test_known_factors_are_taken_as_they_are_if_they_merge_to_the_tensors():
    params = jax.tree.map(np.asarray, random_params(LATENT))
    tensors = to_prx(params, LATENT)
    factors = {
        "modulation": params["modulation"],
        "blocks": {"modulation": params["blocks"]["modulation"]},
    }
    assert merges_to(factors, tensors, LATENT)
    jax.tree.map(np.testing.assert_array_equal, from_prx(tensors, LATENT, factors=factors), params)
    changed = dict(tensors)
    last_bit = np.nextafter(tensors["blocks.2.modulation.lin.weight"], np.float32(9))
    changed["blocks.2.modulation.lin.weight"] = last_bit
    assert merges_to(factors, changed, LATENT)
    changed["blocks.2.modulation.lin.weight"] = last_bit * np.float32(1.000001)
    assert not merges_to(factors, changed, LATENT)
    changed["blocks.2.modulation.lin.weight"] = last_bit * np.float32("nan")
    assert not merges_to(factors, changed, LATENT)
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    assert not merges_to(factors, half, LATENT)


@pytest.mark.parametrize("config", [LATENT, PIXEL], ids=["latent", "pixel"])
def test_the_config_comes_back_with_maps_per_block(config):
    value = json.loads(json.dumps(prx_config(config)))
    returned = config_of_prx(value, prediction=config.prediction)
    assert returned == dataclasses.replace(config, modulation="per_block")
    assert returned.modulation_rank == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "SD3Transformer2DModel"}, "describes a 'SD3Transformer2DModel'; known: P"),
        ({"axes_dim": [4, 12]}, r"axes_dim is \[4, 12\]; it must be \[8, 8\]"),
        ({"axes_dim": None}, r"axes_dim is \[32, 32\]; it must be \[8, 8\]"),
        ({"hidden_size": "wide"}, "hidden_size: 'wide' is not a whole number"),
        ({"num_heads": 5}, "num_heads: 5 does not divide hidden_size 32"),
        ({"patch_size": 0}, "patch_size: 0 is not valid"),
    ],
)
def test_a_foreign_config_is_refused_by_name(changes, words):
    with pytest.raises(UsageError, match=words):
        config_of_prx(prx_config(LATENT) | changes)
