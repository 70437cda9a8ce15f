"""The mission's own command with encoders of the real size: random weights in the real formats."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from pinxit.encoders.clip import ClipConfig, ClipTextConfig, init_clip, save_clip
from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
from pinxit.encoders.vae import AutoencoderKLConfig, init_vae, save_vae

ROOT = Path(__file__).parent.parent
SD_VAE = AutoencoderKLConfig(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=256
)
CLIP_L = ClipTextConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)


def _door(*argv, cwd):
    command = [sys.executable, str(ROOT / "train_text_to_image.py"), *argv]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=1500, check=False
    )


QUICK = (
    *("--dataset_name", "mock", "--dataset_size", "4", "--batch_size", "2", "--max_steps", "2"),
    *("--model.preset", "small", "--image_size", "256", "--model.depth", "2", "--log_interval"),
    *("1", "--evaluation.images", "0", "--sampling.steps", "2"),
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline's directory with Stable Diffusion's autoencoder and text encoder in full size."""
    root = tmp_path_factory.mktemp("sd")
    save_vae(root / "vae", init_vae(SD_VAE, jax.random.key(0)), SD_VAE)
    size = train_clip_tokenizer(["a red house", "light"] * 9, 1_000, root / "tokenizer")
    tower = replace(CLIP_L, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1)
    config = ClipConfig(text=tower, projection_dim=None)
    save_clip(root / "text_encoder", init_clip(config, jax.random.key(1)), config)
    return root


@pytest.mark.slow
def test_latents_of_the_stable_diffusion_autoencoder(pipeline, tmp_path):
    encoders = ("--vae", str(pipeline), "--text_encoder", str(pipeline))
    done = _door("--model.use_stable_vae", "1", *QUICK, *encoders, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "runs" / "mock" / "config.json").read_text())
    assert config["image_size"] == 256
    results = json.loads((tmp_path / "runs" / "mock" / "results.json").read_text())
    assert results["step"] == 2 and results["skipped"] == 0
    model = json.loads((tmp_path / "runs" / "mock" / "model" / "config.json").read_text())
    assert model["model"]["in_channels"] == 4 and model["model"]["context_dim"] == 768
    assert model["model"]["patch_size"] == 2


@pytest.mark.slow
def test_pixels_in_patches_of_eight(pipeline, tmp_path):
    encoders = ("--text_encoder", str(pipeline))
    done = _door("--model.use_stable_vae", "0", *QUICK, *encoders, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "runs" / "mock" / "model" / "config.json").read_text())
    assert model["model"]["in_channels"] == 3 and model["model"]["patch_size"] == 8
    assert model["vae"] == "none"


def test_weights_that_cannot_be_had_end_in_one_line_of_advice(tmp_path):
    done = _door("--model.use_stable_vae", "1", *QUICK, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "stabilityai/sd-vae-ft-mse" in lines[0]
    assert "tiny" in lines[0] and "hf download" in lines[0]
    assert not (tmp_path / "runs").exists()
