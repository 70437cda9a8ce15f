"""A run, its pictures and a prepared dataset with a deep compression autoencoder."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_dc_ae import CONFIG, dc_ae_folder

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest
from pinxit.encoders import dc_ae
from pinxit.model_loading import load_checkpoint
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig


@pytest.fixture
def pipeline(bundle: Path, tmp_path: Path) -> Path:
    """A pipeline's directory whose autoencoder is an `AutoencoderDC`."""
    root = tmp_path / "pipeline"
    shutil.copytree(bundle, root, ignore=shutil.ignore_patterns("vae"))
    dc_ae_folder(root / "vae")
    return root


@pytest.fixture
def config(pipeline: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="ahead",
        dataset_name="mock",
        dataset_size=24,
        image_size=16,
        batch_size=8,
        max_steps=3,
        text_encoder=str(pipeline),
        vae=str(pipeline),
        log_interval=1,
        sample_interval=0,
        output_dir=str(tmp_path / "runs"),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2, patch_size=1),
        sampling=Sampling(steps=2),
        samples=SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        evaluation=EvalConfig(images=0),
    )


def finished(config: TrainConfig) -> list[float]:
    """Trains, and returns the loss of each step."""
    assert run(config, console=Console(file=io.StringIO())).status == "finished"
    rows = read_rows(Path(config.output_dir) / config.name / "metrics.jsonl")
    return [row["loss"] for row in rows if "loss" in row]


def test_it_is_trained_with_and_drawn_with(config: TrainConfig, pipeline: Path):
    losses = finished(config)
    inside = finished(dataclasses.replace(config, name="inside", encode_in_step=True))
    assert len(losses) == 3 and np.isfinite(losses).all()
    np.testing.assert_allclose(inside, losses, rtol=1e-4)
    folder = Path(config.output_dir) / "ahead"
    model = load_checkpoint(folder)
    assert model.latent_shape((24, 16)) == (4, 6, 4)
    picture = model.generate("red light", seed=1, steps=2, size=(24, 16))
    assert picture.size == (24, 16)
    with pytest.raises(UsageError, match="size: 18 is not a multiple of"):
        model.generate("red light", size=18)
    # The same weights with another scale, and other weights, are refused.
    rescaled = dataclasses.replace(CONFIG, scaling_factor=0.5)
    for changed, seed, words in (
        (rescaled, 1, "scale 0.5, shift 0.0' is not the scaling of latents"),
        (CONFIG, 2, "vae: .* is not the weights that .* was trained with"),
    ):
        params = dc_ae.init_dc_ae(changed, jax.random.key(seed))
        dc_ae.save_dc_ae(pipeline / "vae", params, changed)
        with pytest.raises(UsageError, match=words):
            load_checkpoint(folder)


def test_a_dataset_is_prepared_with_it(config: TrainConfig, pipeline: Path, tmp_path: Path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(16):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"red light from the left, number {i}")
    given = ["prepare", "folder", "--dataset_path", pictures, "--vae", pipeline, "--workers", 1]
    given += ["--engine", "inline", "--images.workers", 1, "--encode_batch", 4]
    wrong = [*given, "--out", tmp_path / "wrong", "--image_size", 18]
    assert main([str(word) for word in wrong]) == 2
    assert "not divisible by the autoencoder's factor" in capsys.readouterr().err
    assert (
        main([str(word) for word in [*given, "--out", tmp_path / "set", "--image_size", 16]]) == 0
    )
    manifest = Manifest.read(tmp_path / "set")
    assert manifest.latents["count"] == 16
    prepared = dataclasses.replace(
        config,
        name="prepared",
        dataset_name="prepared",
        dataset_path=str(tmp_path / "set"),
        dataset_size=TrainConfig.dataset_size,
    )
    losses = finished(prepared)
    assert len(losses) == 3 and np.isfinite(losses).all()
