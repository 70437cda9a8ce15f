"""Reading Hugging Face directories: every fault is named, and pickles are never opened."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pinxit.encoders import vae, weights
from pinxit.encoders.vae import AutoencoderKLConfig

TINY = AutoencoderKLConfig(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)


@pytest.fixture
def directory(tmp_path):
    vae.save_vae(tmp_path, vae.init_vae(TINY, jax.random.key(0)), TINY)
    return tmp_path


def test_every_fault_is_in_one_error(directory):
    path = directory / vae.WEIGHTS
    tensors = load_file(path)
    del tensors["encoder.conv_in.bias"]
    tensors["encoder.extra.weight"] = np.zeros(3, np.float32)
    tensors["decoder.conv_in.weight"] = np.zeros((4, 2, 1, 1), np.float32)
    tensors["quant_conv.bias"] = np.full(4, np.nan, np.float32)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="4 tensors do not fit the config") as error:
        vae.load_vae(directory)
    for words in (
        "missing encoder.conv_in.bias",
        "foreign encoder.extra.weight",
        "decoder.conv_in.weight gives (1, 1, 2, 4), expected (3, 3, 2, 4)",
        "quant_conv.bias has values that are not finite",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickles_are_refused(directory, suffix):
    (directory / vae.WEIGHTS).unlink()
    (directory / f"diffusion_pytorch_model{suffix}").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"only pickled weights .*convert them to safetensors"):
        vae.load_vae(directory)


@pytest.mark.parametrize("kept", [0, 4, 100, -5])
def test_truncated_files_are_named(directory, kept):
    path = directory / vae.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        vae.load_vae(directory)


def test_what_is_absent_is_named(directory, tmp_path):
    with pytest.raises(ValueError, match="no 'nowhere' to load"):
        vae.load_vae("nowhere")
    (directory / vae.WEIGHTS).rename(directory / "other.safetensors")
    with pytest.raises(ValueError, match=r"has none of .* it has \['config.json', 'other"):
        vae.load_vae(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json; it has \['other.safetensors'\]"):
        vae.load_vae(directory)


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[]", "holds a list")])
def test_broken_configs_are_named(directory, text, words):
    (directory / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        vae.load_vae(directory)


def test_sharded_weights(directory):
    path = directory / vae.WEIGHTS
    tensors, expected = load_file(path), vae.load_vae(directory)[0]
    path.unlink()
    names = sorted(tensors)
    parts = {"a-00001.safetensors": names[::2], "a-00002.safetensors": names[1::2]}
    for part, owned in parts.items():
        save_file({name: tensors[name] for name in owned}, directory / part)
    weight_map = {name: part for part, owned in parts.items() for name in owned}
    index = directory / f"{vae.WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    jax.tree.map(np.testing.assert_array_equal, vae.load_vae(directory)[0], expected)
    (directory / "a-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"names files that are not there: \['a-00002"):
        vae.load_vae(directory)
    index.write_text(json.dumps({"weight_map": {"x": "../a-00001.safetensors"}}))
    with pytest.raises(ValueError, match="files that are not there"):
        vae.load_vae(directory)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32(directory, dtype):
    path = directory / vae.WEIGHTS
    dtype = jax.numpy.dtype(dtype)
    save_file({name: value.astype(dtype) for name, value in load_file(path).items()}, path)
    params = vae.load_vae(directory)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_an_installation_without_its_bundle_says_so():
    with pytest.raises(ValueError, match=r"lacks its bundled networks: .* is missing"):
        weights.bundled("nothing of this name")


def test_flatten_and_back():
    tree = {"a": {"0": {"kernel": 1}, "b": 2}, "c": 3}
    assert weights.flatten(tree) == {"a.0.kernel": 1, "a.b": 2, "c": 3}
    assert weights.unflatten(weights.flatten(tree)) == tree


def test_initial_values():
    shapes = {"l": {"kernel": (100, 50), "bias": (50,)}, "n": {"scale": (5,)}}
    params = weights.init_params(shapes | {"e": {"embedding": (40, 50)}}, jax.random.key(0))
    assert abs(float(params["l"]["kernel"].std()) - 0.1) < 0.01
    assert abs(float(params["e"]["embedding"].std()) - 0.02) < 0.002
    assert (params["l"]["bias"] == 0).all()
    assert (params["n"]["scale"] == 1).all()
