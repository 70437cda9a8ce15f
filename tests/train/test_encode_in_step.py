"""Encoders inside the step: the same latents, in chunks or at once, and the same run."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from pinxit.config import UsageError
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.text_columns import TextColumns
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.train.encode_step import frozen_arrays, make_encode
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

CAPTIONS = ["red light", "green light from the left", "", "blue light", "red", "a", "b", "c"]


@pytest.mark.parametrize("chunk", [0, 2, 4])
def test_images_become_the_latents_that_they_are_ahead_of_the_step(bundle: Path, chunk: int):
    autoencoder = load_autoencoder(bundle)
    text = TextColumns(load_text_encoder(str(bundle)))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    columns = text.whole(CAPTIONS)
    raw = {"images": images, **columns, "index": np.arange(8, dtype=np.int32)}
    frozen = frozen_arrays(text, columns, autoencoder)
    batch = jax.jit(make_encode(text, autoencoder, chunk=chunk))(frozen, raw)
    pixels = images / np.float32(127.5) - 1
    expected = autoencoder.encode(autoencoder.params, pixels)
    np.testing.assert_allclose(batch.latents, expected, atol=1e-5)
    conditioning = text.conditioning(frozen, raw)
    np.testing.assert_allclose(batch.conditioning.tokens, conditioning.tokens, atol=1e-5)
    np.testing.assert_array_equal(batch.conditioning.mask, conditioning.mask)
    np.testing.assert_array_equal(batch.index, raw["index"])


@pytest.fixture
def config(bundle: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="ahead",
        dataset_name="mock",
        dataset_size=24,
        image_size=16,
        batch_size=8,
        max_steps=4,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=1,
        sample_interval=0,
        output_dir=str(tmp_path),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        evaluation=EvalConfig(images=0),
    )


@pytest.mark.slow
def test_a_run_learns_the_same(config: TrainConfig):
    losses = {}
    for name, changes in {
        "ahead": {},
        "inside": {"encode_in_step": True, "encoder_chunk": 2, "gradient_accumulation_steps": 2},
    }.items():
        given = dataclasses.replace(config, name=name, **changes)
        assert run(given, console=Console(file=io.StringIO())).status == "finished"
        rows = read_rows(Path(config.output_dir) / name / "metrics.jsonl")
        losses[name] = [row["loss"] for row in rows if "loss" in row]
    assert len(losses["ahead"]) == 4
    np.testing.assert_allclose(losses["inside"], losses["ahead"], rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_chunk": 3}, ("encoder_chunk", "3", "divisors of 8")),
        ({"encoder_chunk": 8, "gradient_accumulation_steps": 2}, ("encoder_chunk", "4")),
        (
            {"encode_in_step": True, "model": ModelConfig(use_stable_vae=False)},
            ("encode_in_step", "pixels"),
        ),
    ],
)
def test_what_does_not_fit_is_refused(config: TrainConfig, changes: dict, words: tuple[str, ...]):
    with pytest.raises(UsageError) as refusal:
        dataclasses.replace(config, **changes)
    for word in words:
        assert word in str(refusal.value)
