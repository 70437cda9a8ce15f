"""Exported models come back: the parameters to the bit, and pictures to the byte."""

from __future__ import annotations

import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from pinxit.cli.main import main
from pinxit.model_loading import load_checkpoint
from pinxit.models.diffusers_prx import to_prx
from pinxit.picture_files import picture_bytes
from pinxit.pipeline import TextToImage

NAMES = ("shipped", "clip", "dc_ae", "t5", "t5gemma", "pixel")
PROMPT = "a small red house"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def picture_of(model: TextToImage) -> bytes:
    (item,) = model.stream(PROMPT, seed=3, steps=2)
    return picture_bytes(*item)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_folder_is_the_model(name, releases, exports):
    before, after = load_checkpoint(releases.get(name)), load_checkpoint(exports[name])
    assert after.config == before.config
    assert after.sampling == before.sampling
    assert after.text_encoder.max_tokens == before.text_encoder.max_tokens
    pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert jax.tree.structure(before.params) == jax.tree.structure(after.params)
    assert picture_of(after) == picture_of(before)


@pytest.mark.parametrize("name", ["clip", "pixel"])
def test_an_export_of_an_export_has_the_same_weights(name, exports, tmp_path):
    words = ["export", str(exports[name]), "--out", str(tmp_path / "again"), "--samples", "0"]
    assert main(words) == 0
    for path in (WEIGHTS, "pinxit/modulation.safetensors", "model_index.json"):
        assert (tmp_path / "again" / path).read_bytes() == (exports[name] / path).read_bytes()


def test_a_folder_without_our_own_files_has_a_map_per_block(exports, releases, tmp_path):
    import shutil

    folder = Path(shutil.copytree(exports["clip"], tmp_path / "plain"))
    shutil.rmtree(folder / "pinxit")
    model = load_checkpoint(folder)
    assert model.config.modulation == "per_block"
    tensors, stored = to_prx(model.params, model.config), load_file(folder / WEIGHTS)
    assert tensors.keys() == stored.keys()
    assert all(np.array_equal(tensors[name], stored[name]) for name in stored)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_file_draws_the_same(name, releases, tmp_path):
    release = releases.get(name)
    words = ["export", *([str(release)] if release else []), "--format", "safetensors"]
    path = tmp_path / "model.safetensors"
    assert main([*words, "--out", str(path)]) == 0
    before = load_checkpoint(release)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = load_checkpoint(path)
    how = {"seed": 3, "steps": 2, "output_type": "latent"}
    expected = before.generate(PROMPT, **how)
    np.testing.assert_allclose(after.generate(PROMPT, **how), expected, atol=1e-4)
