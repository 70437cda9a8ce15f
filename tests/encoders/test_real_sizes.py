"""The encoders at their real sizes against diffusers and transformers, from files these wrote.

Random weights as those libraries draw them. About three minutes and 6 GB of memory on two cores:
``pytest -m "slow and parity" tests/encoders/test_real_sizes.py -s`` prints the errors, each the
largest difference over the largest value.

The autoencoder is held against diffusers' in double precision: over its dozens of convolutions
torch's own float32 strays further than the bound, by a little that depends on the machine.
"""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.encoders import clip, dc_ae, vae
from pinxit.encoders.abstract_autoencoder import SANA_DC_AE

pytestmark = [pytest.mark.slow, pytest.mark.parity]
EXACT = 1e-5
SD_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
FAMILIES = {
    "SD": {"latent_channels": 4, "scaling_factor": 0.18215},
    "SDXL": {"latent_channels": 4, "scaling_factor": 0.13025, "force_upcast": False},
}
CLIP_L = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
CLIP_L_VISION = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096}
encode_moments = jax.jit(vae.encode_moments, static_argnums=1)
decode = jax.jit(vae.decode_latents, static_argnums=1)
text_forward = jax.jit(clip.text_forward, static_argnums=1)
image_forward = jax.jit(clip.image_forward, static_argnums=1)


@pytest.fixture(autouse=True)
def memory_is_given_back():
    yield
    jax.clear_caches()
    gc.collect()


@pytest.mark.parametrize("family", FAMILIES)
def test_autoencoder(family, tmp_path):
    """256 x 256 pixels, 32 x 32 x 4 latents; the same network, other constants, in both."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**SD_VAE | FAMILIES[family]).eval()
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        latents = model.encode(pixels).latent_dist.mean
        single = model.decode(latents).sample.numpy().transpose(0, 2, 3, 1)
        model.double()
        posterior = model.encode(pixels.double()).latent_dist
        decoded = model.decode(latents.double()).sample.numpy().transpose(0, 2, 3, 1)
    moments = [x.numpy().transpose(0, 2, 3, 1) for x in (posterior.mean, posterior.logvar)]
    latents = latents.numpy().transpose(0, 2, 3, 1)
    del model
    print(f"\n{family} VAE image, torch's float32: {error_of(single, decoded):.1e}")
    for dtype, bound in (("float32", EXACT), ("bfloat16", 0.05)):
        params, config = vae.load_vae(tmp_path, dtype=dtype)
        assert config.scaling_factor == FAMILIES[family]["scaling_factor"]
        for name, ours, expected in zip(
            ("mean", "logvar"), encode_moments(params, config, images), moments, strict=True
        ):
            check(f"{family} VAE {name}", dtype, bound, ours, expected)
        check(f"{family} VAE image", dtype, bound, decode(params, config, latents), decoded)


def test_deep_compression_autoencoder(tmp_path):
    """Sana's and PRX's: 256 x 256 pixels, 8 x 8 x 32 latents, 312 M parameters."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderDC.from_config(SANA_DC_AE.to_json()).eval()
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    model.double()
    with torch.inference_mode():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double()
        expected = model.encode(pixels).latent
        latents = expected.float().numpy().transpose(0, 2, 3, 1)
        decoded = model.decode(expected.float().double()).sample.numpy().transpose(0, 2, 3, 1)
    expected = expected.numpy().transpose(0, 2, 3, 1)
    del model
    for dtype, bound in (("float32", EXACT), ("bfloat16", 0.05)):
        params, config = dc_ae.load_dc_ae(tmp_path, dtype=dtype)
        assert config == SANA_DC_AE
        ours = jax.jit(dc_ae.encode_images, static_argnums=1)(params, config, images)
        check("DC-AE latents", dtype, bound, ours, expected)
        ours = jax.jit(dc_ae.decode_raw, static_argnums=1)(params, config, latents)
        check("DC-AE image", dtype, bound, ours, decoded)


def test_clip_text(tmp_path):
    """CLIP ViT-L/14's text tower on four captions of 77 tokens."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(**CLIP_L, num_attention_heads=12, projection_dim=768)
    model = transformers.CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    token_ids = rng.integers(0, 49406, (4, 77)).astype(np.int32)
    token_ids[:, 0] = 49406
    for row, end in enumerate((1, 9, 40, 76)):
        token_ids[row, end:] = 49407
    with torch.inference_mode():
        out = model(torch.from_numpy(token_ids).long())
    del model
    for dtype, bound in (("float32", EXACT), ("bfloat16", 0.05)):
        params, ours_config = clip.load_clip(tmp_path, only="text", dtype=dtype)
        ours = text_forward(params, ours_config, token_ids)
        check("CLIP-L text", dtype, bound, ours.hidden, out.last_hidden_state.numpy())
        check("CLIP-L text, projected", dtype, bound, ours.projected, out.text_embeds.numpy())


def test_clip_vision(tmp_path):
    """CLIP ViT-L/14's vision tower on two images of 224 x 224."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        **CLIP_L_VISION, num_attention_heads=16, patch_size=14, image_size=224, projection_dim=768
    )
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    with torch.inference_mode():
        out = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    del model
    for dtype, bound in (("float32", EXACT), ("bfloat16", 0.05)):
        params, ours_config = clip.load_clip(tmp_path, only="vision", dtype=dtype)
        ours = image_forward(params, ours_config, pixels)
        check("CLIP-L image", dtype, bound, ours.hidden, out.last_hidden_state.numpy())
        check("CLIP-L image, projected", dtype, bound, ours.projected, out.image_embeds.numpy())


def check(what: str, dtype: str, bound: float, ours, expected: np.ndarray) -> None:
    """Prints the relative error and holds it to `bound`."""
    ours = np.asarray(ours.astype(jnp.float32))
    assert ours.shape == expected.shape
    error = error_of(ours, expected)
    print(f"\n{what}, {dtype}: {error:.1e}")
    assert error <= bound, (what, dtype, error)


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
