"""Inception's input and its file of weights; its features are compared in the parity tests."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pinxit.config import UsageError
from pinxit.encoders.weights import flatten, to_tensors, unflatten
from pinxit.evaluate.extractors.clean_resize import clean_resize
from pinxit.evaluate.extractors.inception import InceptionFeatures, load_inception
from pinxit.evaluate.extractors.inception_network import (
    folded,
    inception_features,
    inception_shapes,
    pool3x3,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("sides", [(64, 40), (512, 300), (1, 1), (7, 500), (299, 512)])
def test_the_resize_has_the_bytes_of_pils_floats(sides: tuple[int, int]):
    picture = noise(*sides, 3)
    ours = clean_resize(picture)
    assert ours.dtype == np.float32 and ours.shape == (299, 299, 3)
    for i in range(3):
        channel = Image.new("F", sides[::-1])
        channel.putdata([float(value) for value in picture[:, :, i].ravel()])
        theirs = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        assert ours[:, :, i].tobytes() == theirs.tobytes()
    if sides[0] > 10:
        assert (ours != ours.round()).any(), "floats are not rounded"
        assert ours.min() == 0 and ours.max() == 255, "noise overshoots and is clipped"


def test_a_picture_of_the_right_size_keeps_its_values():
    picture = noise(299, 299, 3)
    np.testing.assert_array_equal(clean_resize(picture), picture)


@pytest.mark.parametrize(
    "picture", [noise(8, 8), noise(8, 8, 1), noise(8, 8, 4), noise(8, 8, 3) / np.float32(255)]
)
def test_pictures_that_are_not_rgb_bytes_are_refused(picture: np.ndarray):
    with pytest.raises(UsageError, match=r"valid: uint8 with shape \(height, width, 3\)"):
        clean_resize(picture)


def test_pooling_leaves_the_padding_out():
    x = jnp.ones((1, 4, 5, 2)) * jnp.arange(1.0, 3.0)[None, None, None]
    np.testing.assert_allclose(pool3x3(x, "average"), x, rtol=1e-6)
    np.testing.assert_array_equal(pool3x3(-x, "maximum"), -x)
    grid = jnp.arange(35.0).reshape(1, 5, 7, 1)
    np.testing.assert_array_equal(pool3x3(grid, "halve")[0, :, :, 0], [[16, 18, 20], [30, 32, 34]])
    assert pool3x3(grid, "average")[0, 0, 0, 0] == (0 + 1 + 7 + 8) / 4


def test_folding_gives_the_normalised_convolution():
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(1, 1, 3, 4)), rng.normal(size=3)
    scale, bias, mean, var = rng.uniform(0.5, 2, (4, 4))
    bn = {"scale": scale, "bias": bias, "running_mean": mean, "running_var": var}
    layer = folded({"a": {"conv": {"kernel": kernel}, "bn": bn}})["a"]
    expected = (x @ kernel[0, 0] - mean) / np.sqrt(var + 0.001) * scale + bias
    np.testing.assert_allclose(x @ layer["kernel"][0, 0] + layer["bias"], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Small weights of the right names and shapes, as pytorch-fid names them."""
    flat = {
        path: np.full(shape, 0.01, np.float32)
        for path, shape in flatten(inception_shapes()).items()
    }
    return to_tensors(unflatten(flat))


@pytest.fixture(scope="module")
def stored(tensors: dict[str, np.ndarray], tmp_path_factory) -> Path:
    """A file in float16, with the entries of the published file that features do not need."""
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    more = {
        "fc.weight": np.zeros((1008, 2048)),
        "Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64),
    }
    save_file({name: value.astype(np.float16) for name, value in tensors.items()} | more, path)
    return path


def test_the_network_has_the_size_of_the_published_one(stored: Path):
    params = load_inception(stored)
    assert len(flatten(inception_shapes())) == 94 * 5
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert size == 21_785_568 + 34_432, "the weights of every Inception v3 and its statistics"
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    features = jax.eval_shape(
        inception_features, folded(params), jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    )
    assert features.shape == (2, 2048) and features.dtype == jnp.float32
    about = InceptionFeatures(params).about()
    assert about["name"] == "inception" and len(about["weights"]) == 16
    assert about["resize"] == "clean-fid: PIL bicubic on floats to 299, not rounded"


def test_wrong_tensors_are_refused_in_one_line(tensors: dict[str, np.ndarray], tmp_path: Path):
    name = "Mixed_7c.branch3x3dbl_3a.conv.weight"
    for changed, problem in (
        ({name: np.zeros((384, 384, 3, 1), np.float32)}, f"{name} has shape"),
        ({"aux.weight": np.zeros(3, np.float32)}, "1 tensors do not fit the Inception v3 of FID"),
        ({name: np.zeros((384, 384, 1, 3), np.int32)}, f"{name} is of type"),
        ({name: np.full((384, 384, 1, 3), np.nan, np.float32)}, "not finite"),
    ):
        save_file(tensors | changed, tmp_path / "x.safetensors")
        with pytest.raises(UsageError, match=problem) as caught:
            load_inception(tmp_path / "x.safetensors")
        assert str(caught.value).startswith(f"inception: {tmp_path}") and "\n" not in str(
            caught.value
        )
    np.savez(tmp_path / "y.npz", **{n: v for n, v in tensors.items() if n != name})
    with pytest.raises(UsageError, match=f"missing {name}"):
        load_inception(tmp_path / "y.npz")


def test_files_of_other_kinds_are_refused_unread(tmp_path: Path):
    for name, content, problem in (
        ("a.pt", b"PK\3\4data", "convert_inception.py .*a.pt inception.safetensors"),
        ("a.pkl", b"\x80\4.", "pickle or TorchScript, which is not opened here"),
        ("weights", b"\x80\4.", "pickle or TorchScript, which is not opened here"),
        ("a.safetensors", b"text of no kind", "not a whole safetensors file"),
        ("a.npz", b"PK\3\4cut", "not a whole npz file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=problem) as caught:
            load_inception(tmp_path / name)
        assert re.match(r"inception: .*; valid: a safetensors or npz file", str(caught.value))
    objects = np.empty(1, object)
    np.savez(tmp_path / "objects.npz", x=objects)
    for name, problem in (("objects.npz", "npz"), ("none", "not a file"), (".", "a directory")):
        with pytest.raises(UsageError, match=problem):
            load_inception(tmp_path / name)
