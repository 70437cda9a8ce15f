"""The step as shapes is the step of a run: the same program, from nothing loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from pinxit.config import UsageError
from pinxit.devices.mesh import batch_sharding, replicated
from pinxit.devices.transfer import place_batch
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder
from pinxit.encoders.weights import flatten
from pinxit.recipes import RECIPES, mock
from pinxit.train.abstract_program import abstract_program
from pinxit.train.build import build, build_state, build_step
from pinxit.train.display import Display
from pinxit.train.encode_step import frozen_arrays
from pinxit.train.input import in_memory
from pinxit.train.input.open import open_feed
from pinxit.train.run_folder import claim
from pinxit.train.settings import ModelConfig, TrainConfig


def small(tmp_path: Path, **changes: Any) -> TrainConfig:
    config = {"dataset_size": 16, "batch_size": 8, "output_dir": str(tmp_path)}
    settings = mock().__dict__ | config | {"use_amp": True} | changes
    return TrainConfig(**settings).resolved()


@pytest.mark.parametrize("remat", ["none", "full"])
def test_it_lowers_to_the_program_of_the_run(tmp_path: Path, remat: str):
    config = small(
        tmp_path,
        model=ModelConfig(preset="debug", remat=remat),
        gradient_accumulation_steps=2,
        encode_in_step=remat == "full",
    )
    parts = build(config)
    state = build_state(config, parts)
    display = Display("x", max_steps=1, console=Console(quiet=True))
    feed = open_feed(config, parts, claim(config), display, source=None)
    raw = jax.device_put(feed.loader.batch(0), batch_sharding(parts.mesh))
    frozen = frozen_arrays(feed.text, feed.text_columns, parts.encoder_in_step(config))
    frozen = jax.device_put(frozen, replicated(parts.mesh))
    step: Any = build_step(config, parts, state, feed.text)
    real = step.lower(state, frozen, raw)
    program = abstract_program(config, columns=feed.text_columns)
    assert program.lower().as_text() == real.as_text()
    sizes = program.bytes_by_part()
    assert sizes["parameters"] == sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert sizes["encoders"] == sum(np.asarray(x).nbytes for x in jax.tree.leaves(frozen))
    idle = [] if config.encode_in_step else jax.tree.leaves(parts.autoencoder.params)
    assert sizes["encoders beside the step"] == sum(x.nbytes for x in idle)
    assert sizes["inputs"] == 3 * sum(x.nbytes for x in raw.values())


def test_the_shapes_of_images_that_are_not_encoded_yet_are_those_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(in_memory, "ENCODED_FIRST", 8)
    config = small(tmp_path, dataset_name="scenes")
    parts = build(config)
    display = Display("x", max_steps=1, console=Console(quiet=True))
    feed = open_feed(config, parts, claim(config), display, source=None)
    shapes = feed.shapes()
    feed.begin(1)
    batch = feed.loader.batch(1)
    feed.close()
    placed = place_batch(batch, parts.mesh, np.arange(8), 8)
    assert shapes == {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
        for name, array in placed.items()
    }


def test_real_encoders_need_no_weights(tmp_path: Path):
    config = small(tmp_path, text_encoder="clip+t5", vae="sdxl", encoder_dtype="bfloat16")
    program = abstract_program(config)
    assert program.parts.model.context_dim == 768 + 4096
    assert program.columns["token_ids"].shape == (8, 77)
    assert program.columns["text_tokens_1"].shape == (8, 77, 4096)
    assert program.frozen["null"].tokens.shape == (1, 154, 4864)
    # CLIP ViT-L/14's text tower has 123.06 M parameters, and its projection 0.59 M
    clip = sum(x.size for x in jax.tree.leaves(program.frozen["text"]["0"]))
    assert clip == 123_060_480 + 768 * 768


@pytest.mark.parametrize("inside", [False, True])
def test_a_deep_compression_autoencoder_needs_no_weights(tmp_path: Path, inside: bool):
    model = ModelConfig(preset="debug", patch_size=1)
    config = small(tmp_path, vae="dc_ae", image_size=128, model=model, encode_in_step=inside)
    program = abstract_program(config)
    assert program.parts.model.in_channels == 32
    if inside:
        assert program.columns["images"].shape == (8, 128, 128, 3)
    else:
        assert program.columns["latents"].shape == (8, 4, 4, 32)
    frozen = program.bytes_by_part()
    parts = [frozen["encoders"], frozen["encoders beside the step"]]
    assert parts[0 if inside else 1] >= 4 * 312_250_275


def test_the_published_sizes():
    def count(tree: Any) -> int:
        return sum(leaf.size for leaf in flatten(tree).values())

    assert count(abstract_autoencoder("sd").params) == 83_653_863
    assert count(abstract_text_encoder("t5").params) == 4_762_310_656
    assert abstract_autoencoder("sdxl").stats.scale == 0.13025
    assert count(abstract_autoencoder("dc_ae").params) == 312_250_275


def test_directories_are_read_and_unknown_names_refused(bundle: Path):
    text = abstract_text_encoder(str(bundle))
    assert (text.width, text.max_tokens) == (16, 16)
    assert abstract_autoencoder(str(bundle)).stats.channels == 2
    with pytest.raises(UsageError, match=r"text_encoder: 'nobody/knows'.*clip, .*directory"):
        abstract_text_encoder("nobody/knows")
    with pytest.raises(UsageError, match=r"vae: 'nobody/knows'.*sdxl"):
        abstract_autoencoder("nobody/knows")
    with pytest.raises(UsageError, match="not a pair of encoders"):
        abstract_text_encoder("clip+t5+clip")


@pytest.mark.parametrize("name", ["coyo_256", "coyo_256_a100", "coyo_256_v100", "coyo_512"])
def test_recipes_have_a_step(name: str):
    program = abstract_program(replace(RECIPES[name]().resolved(), dataset_name="prepared"))
    config = program.config
    side = config.image_size // 8
    assert program.columns["latents"].shape == (config.batch_size, side, side, 4)
    assert program.bytes_by_part()["parameters"] == 1_725_696_064
