"""Pipelines that torch wrote: read, drawn with and written again, against the stock pipelines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from prx_folders import tensors_of
from stock_t5gemma import t5gemma_class
from tiny_dc_ae import CONFIG as DC_AE
from tiny_t5 import SIZES, sentencepiece_model, t5_pieces
from tiny_t5gemma import SIZES as GEMMA_SIZES
from tiny_t5gemma import write_tokenizer

from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
from pinxit.model_loading import load_checkpoint
from pinxit.models.diffusers_prx import config_of_prx, prx_shapes, to_prx
from pinxit.models.transformer import abstract
from pinxit.stored_model import read_model

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
WORDS = ["a small red house under the moon", "light from the left, a blue house"]
PROMPT, NEGATIVE = "A small RED house under the moon", "blue light"
STEPS, GUIDANCE = 20, 4.5


def clip_parts(folder: Path) -> tuple[Any, Any]:
    """A CLIP text encoder with random weights, and a tokenizer with a small vocabulary."""
    import transformers

    size = train_clip_tokenizer(WORDS * 3, 560, folder / "vocabulary", max_tokens=77)
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "vocabulary")
    return transformers.CLIPTextModel(config), tokenizer


def t5_parts(folder: Path) -> tuple[Any, Any]:
    """A T5 encoder with random weights, and a tokenizer with a small vocabulary."""
    import transformers

    config = transformers.T5Config(**SIZES, feed_forward_proj="gated-gelu")
    path = folder / "spiece.model"
    path.write_bytes(sentencepiece_model(t5_pieces()))
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=0)
    tokenizer.model_max_length = 40
    return transformers.T5EncoderModel(config), tokenizer


def kl_autoencoder() -> Any:
    """An autoencoder of Flux's form, with a sixteenth of its widths."""
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        sample_size=32,
    )


def t5gemma_parts(folder: Path) -> tuple[Any, Any]:
    """A T5Gemma encoder with random weights, and a tokenizer with a small vocabulary."""
    import transformers
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaConfig, T5GemmaModuleConfig

    parts = {name: T5GemmaModuleConfig(**GEMMA_SIZES) for name in ("encoder", "decoder")}
    whole = T5GemmaConfig(**parts, is_encoder_decoder=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(write_tokenizer(folder / "gemma"))
    tokenizer.model_max_length = 40
    return t5gemma_class()(whole.encoder), tokenizer


ENCODERS = {
    "clip": (clip_parts, 16),
    "t5": (t5_parts, SIZES["d_model"]),
    "t5gemma": (t5gemma_parts, GEMMA_SIZES["hidden_size"]),
}
"""Text encoders: the function that makes one with its tokenizer, and its width."""


def dc_autoencoder() -> Any:
    """A DC-AE of the form of Sana's and PRX's, with few levels and small widths."""
    import diffusers

    fields = {k: v for k, v in DC_AE.to_json().items() if not k.startswith("_")}
    return diffusers.AutoencoderDC(**fields)


AUTOENCODERS = {"kl": (kl_autoencoder, 16, 2), "dc": (dc_autoencoder, DC_AE.latent_channels, 1)}
"""Autoencoders: the function, its latent channels, and the side of a token."""
PAIRS = [("clip", "kl"), ("t5", "kl"), ("t5gemma", "kl"), ("t5gemma", "dc")]
"""The latent pipelines: a text encoder and an autoencoder."""


def noisy(module: Any, scale: float = 0.1) -> Any:
    """Adds noise to all weights, so that nothing is zero, and returns the module."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()


def network(width: int, channels: int, patch: int, **more: Any) -> Any:
    from diffusers import PRXTransformer2DModel

    fields = {"hidden_size": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0, "axes_dim": [8, 8]}
    fields |= {"in_channels": channels, "patch_size": patch, "context_in_dim": width}
    return noisy(PRXTransformer2DModel(**fields | more))


def saved(folder: Path, text: str, vae: str | None) -> tuple[Path, Any]:
    """Makes a pipeline, saves it as torch does, and returns the directory and the pipeline."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXPixelPipeline

    torch.manual_seed(0)
    make, width = ENCODERS[text]
    encoder, tokenizer = make(folder)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = {"scheduler": scheduler, "text_encoder": noisy(encoder), "tokenizer": tokenizer}
    if vae is None:
        transformer = network(width, 3, 8, bottleneck_size=16, resolution_embeds=True)
        own = {"noise_scale": 1.0, "prompt_max_tokens": 77 if text == "clip" else 40}
        pipeline = PRXPixelPipeline(transformer, **parts, default_sample_size=32, **own)
    else:
        make_vae, channels, patch = AUTOENCODERS[vae]
        transformer = network(width, channels, patch)
        autoencoder = noisy(make_vae(), 0.02)
        pipeline = PRXPipeline(transformer, **parts, vae=autoencoder, default_sample_size=32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline", pipeline


def their_latents(pipeline: Any, noise: np.ndarray) -> np.ndarray:
    """Returns the latents of the stock pipeline's guided steps."""
    import torch

    with torch.no_grad():
        latents = pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=torch.from_numpy(noise.transpose(2, 0, 1)[None].copy()),
            height=32,
            width=32,
            use_resolution_binning=False,
            output_type="latent",
        ).images
    return latents[0].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("text", "vae"), [*PAIRS, ("clip", None), ("t5", None)], ids=lambda name: str(name)
)
def test_a_pipeline_that_torch_wrote_draws_what_the_stock_pipeline_draws(
    text: str, vae: str | None, tmp_path: Path
):
    import torch

    directory, pipeline = saved(tmp_path, text, vae)
    model = load_checkpoint(directory)
    assert model.image_size == 32 and model.sampling.shift == 3.0
    shape = model.latent_shape(32)
    noise = np.asarray(jax.random.normal(jax.random.key(5), shape), np.float32)
    ours = _drawn(model, noise)
    theirs = their_latents(pipeline, noise)
    error = np.abs(ours - theirs).max()
    print(text, vae, "latents", error, "of", np.abs(theirs).max())
    assert theirs.std() > 0.1
    assert error <= 1e-4
    if vae is None:
        return
    scale, shift = (
        pipeline.vae.config.scaling_factor,
        getattr(pipeline.vae.config, "shift_factor", 0),
    )
    with torch.no_grad():
        raw = torch.from_numpy(theirs.transpose(2, 0, 1)[None].copy()) / scale + (shift or 0.0)
        decoded = pipeline.vae.decode(raw, return_dict=False)[0][0].numpy().transpose(1, 2, 0)
    image = np.asarray(model.vae.decode(ours))
    expected = np.clip(np.round((decoded / 2 + 0.5) * 255), 0, 255)
    assert np.abs(image.astype(int) - expected).max() <= 1


def _drawn(model: Any, noise: np.ndarray) -> np.ndarray:
    """Returns the latents that our pipeline draws from the noise."""
    from pinxit import pipeline

    order = model.order(
        PROMPT, negative_prompt=NEGATIVE, steps=STEPS, guidance_scale=GUIDANCE, output_type="latent"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "noise_of", lambda seeds, shape, mesh: jnp.asarray(noise)[None])
        [(_, latents)] = model.pictures(order)
    return np.asarray(latents)


@pytest.mark.parametrize(("text", "vae"), [("clip", "kl"), ("t5", None)], ids=str)
def test_an_import_goes_out_again_to_the_bit(text: str, vae: str | None, tmp_path: Path):
    directory, _ = saved(tmp_path, text, vae)
    model = load_checkpoint(directory)
    written = to_prx(jax.tree.map(np.asarray, model.params), model.config)
    original = tensors_of(directory)
    assert written.keys() == original.keys()
    assert all(written[name].tobytes() == original[name].tobytes() for name in original)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_as_it_is(dtype: str, tmp_path: Path):
    import torch

    _, pipeline = saved(tmp_path, "clip", "kl")
    halved = pipeline.to(getattr(torch, dtype))
    halved.save_pretrained(tmp_path / "half")
    stored = read_model(tmp_path / "half")
    config = load_checkpoint(tmp_path / "half").config
    state = halved.transformer.state_dict()
    for name, tensor in to_prx(stored.params, config).items():
        np.testing.assert_array_equal(tensor, state[name].float().numpy())


PUBLIC = {
    "prx with the Flux VAE": {"in_channels": 16, "patch_size": 2},
    "prx with DC-AE": {"in_channels": 32, "patch_size": 1},
}
"""Where the published PRX models differ: all others are the defaults of the class."""


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_models_have_the_names_and_shapes_of_the_class(name: str):
    import torch
    from diffusers import PRXTransformer2DModel

    fields = {
        "context_in_dim": 2304,
        "hidden_size": 1792,
        "mlp_ratio": 3.5,
        "num_heads": 28,
        "depth": 16,
        "axes_dim": [32, 32],
        "theta": 10_000,
        "time_factor": 1000.0,
        "time_max_period": 10_000,
        **PUBLIC[name],
    }
    with torch.device("meta"):
        theirs = PRXTransformer2DModel(**fields)
    config = config_of_prx(fields)
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert prx_shapes(config) == shapes
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract(config)[1]))
    assert ours == sum(p.numel() for p in theirs.parameters())
    print(name, f"{ours:,} parameters")
    assert config == dataclasses.replace(config_of_prx({}), **PUBLIC[name])
