"""The encoders give what transformers and diffusers gave: scripts/write_golden.py wrote it down."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from pinxit.encoders import clip, dc_ae, t5, t5gemma, vae

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name / "golden.npz", allow_pickle=False) as file:
        return dict(file)


def close(ours, theirs: np.ndarray) -> None:
    """To 1e-5 of the largest value."""
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.1
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["clip", "clip_gelu"])
def test_clip(name: str):
    theirs = golden(name)
    params, config = clip.load_clip(GOLDEN / name)
    text = jax.jit(clip.text_forward, static_argnums=1)(params, config, theirs["ids"])
    image = jax.jit(clip.image_forward, static_argnums=1)(params, config, theirs["pixels"])
    for field in ("hidden", "pooled", "projected"):
        close(getattr(text, field), theirs[f"text_{field}"])
        close(getattr(image, field), theirs[f"image_{field}"])


@pytest.mark.parametrize("name", ["t5_v1_1", "t5_v1_0"])
def test_t5(name: str):
    theirs = golden(name)
    params, config = t5.load_t5(GOLDEN / name)
    forward = jax.jit(t5.t5_forward, static_argnums=1)
    close(forward(params, config, theirs["ids"], theirs["mask"]), theirs["states"])


def test_t5gemma():
    theirs = golden("t5gemma")
    params, config = t5gemma.load_t5gemma(GOLDEN / "t5gemma")
    forward = jax.jit(t5gemma.t5gemma_forward, static_argnums=1)
    close(forward(params, config, theirs["ids"], theirs["mask"]), theirs["states"])


def test_the_autoencoder():
    theirs = golden("vae")
    params, config = vae.load_vae(GOLDEN / "vae")
    mean, logvar = jax.jit(vae.encode_moments, static_argnums=1)(params, config, theirs["images"])
    close(mean, theirs["mean"])
    close(logvar, theirs["logvar"])
    close(jax.jit(vae.decode_latents, static_argnums=1)(params, config, theirs["latents"]),
          theirs["decoded"])  # fmt: skip


@pytest.mark.parametrize("form", ["linear", "quadratic"])
@pytest.mark.parametrize("name", ["dc_ae", "dc_ae_batch_norm"])
def test_the_deep_compression_autoencoder(name: str, form: str):
    """On grids of more and of fewer cells than a head is wide."""
    theirs = golden(name)
    params, config = dc_ae.load_dc_ae(GOLDEN / name)
    latents = theirs[f"{form}_latents"]
    assert (latents.shape[1] * latents.shape[2] > config.attention_head_dim) == (form == "linear")
    encode, decode = (jax.jit(f, static_argnums=1) for f in (dc_ae.encode_images, dc_ae.decode_raw))
    close(encode(params, config, theirs[f"{form}_images"]), latents)
    close(decode(params, config, latents), theirs[f"{form}_decoded"])
