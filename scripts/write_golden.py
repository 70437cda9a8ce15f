"""Writes the reference outputs for the encoders' tests without torch: tests/encoders/golden/.

python scripts/write_golden.py    (extra: parity)

Each folder has a tiny network with random weights, as transformers or diffusers saves it, and
`golden.npz` with inputs and that library's outputs for them in float32.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

GOLDEN = Path(__file__).parents[1] / "tests" / "encoders" / "golden"
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SANA: dict[str, Any] = {
    "encoder_layers_per_block": (1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1),
    "encoder_qkv_multiscales": ((), (5,), (5,)),
    "decoder_qkv_multiscales": ((), (5,), (5,)),
    "downsample_block_type": "Conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
"""The settings in which Sana's autoencoder differs from diffusers' defaults."""
IMAGENET: dict[str, Any] = {
    "encoder_layers_per_block": (0, 1, 1),
    "decoder_layers_per_block": (0, 1, 1),
    "encoder_qkv_multiscales": ((), (), ()),
    "decoder_qkv_multiscales": ((), (), ()),
    "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_norm_types": ("batch_norm", "batch_norm", "rms_norm"),
    "decoder_act_fns": ("relu", "relu", "silu"),
}
"""Those of dc-ae-f32c32-in-1.0 and its like."""


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    with torch.no_grad():
        write_clip("clip", "quick_gelu", rng)
        write_clip("clip_gelu", "gelu", rng)
        write_t5("t5_v1_1", "gated-gelu", rng)
        write_t5("t5_v1_0", "relu", rng)
        write_vae(rng)
        write_dc_ae("dc_ae", rng, SANA)
        write_dc_ae("dc_ae_batch_norm", rng, IMAGENET)
        write_t5gemma()
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    print(f"{GOLDEN}: {size / 1000:.0f} kB")


def write_clip(name: str, act: str, rng: np.random.Generator) -> None:
    """Both towers."""
    text = {"vocab_size": 40, "max_position_embeddings": 9, "bos_token_id": 38, "eos_token_id": 39}
    vision = {"image_size": 8, "patch_size": 4}
    config = CLIPConfig(
        text_config=SIZES | text | {"hidden_act": act},
        vision_config=SIZES | vision | {"hidden_act": act},
        projection_dim=12,
    )
    model = random(CLIPModel(config))
    ids = np.full((3, 9), 39, np.int32)
    for row, length in enumerate((7, 3, 0)):
        ids[row, : length + 1] = [38, *rng.integers(0, 38, length)]
    pixels = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)
    seen = model.vision_model(pixel_values=channels_first(pixels))
    read = model.text_model(input_ids=torch.from_numpy(ids).long())
    save(
        model,
        name,
        ids=ids,
        text_hidden=read.last_hidden_state,
        text_pooled=read.pooler_output,
        text_projected=model.text_projection(read.pooler_output),
        pixels=pixels,
        image_hidden=seen.last_hidden_state,
        image_pooled=seen.pooler_output,
        image_projected=model.visual_projection(seen.pooler_output),
    )


def write_t5(name: str, kind: str, rng: np.random.Generator) -> None:
    """The encoder, with captions of several lengths; padding is part of the output."""
    config = T5Config(
        vocab_size=64,
        d_model=12,
        d_kv=4,
        d_ff=20,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj=kind,
    )
    model = random(T5EncoderModel(config))
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    model.get_parameter(bias).normal_()
    mask = np.arange(40)[None] < np.array([40, 23, 1])[:, None]
    ids = np.where(mask, rng.integers(3, 64, mask.shape), 0).astype(np.int32)
    states = model(
        input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask)
    ).last_hidden_state
    save(model, name, ids=ids, mask=mask, states=states)


def write_t5gemma() -> None:
    """The encoder, with rows that are padded on the right and on the left; both are longer than
    the window, and the soft cap is reached."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    config = T5GemmaModuleConfig(
        **SIZES | {"num_hidden_layers": 3, "num_attention_heads": 4},
        vocab_size=64,
        num_key_value_heads=2,
        head_dim=6,
        query_pre_attn_scalar=5,
        sliding_window=5,
        attn_logit_softcapping=0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        dropout_rate=0.0,
    )
    model = random(T5GemmaEncoder(config))
    mask = np.arange(20)[None] < np.array([20, 13, 1, 11])[:, None]
    mask[3] = mask[3, ::-1]
    ids = np.where(mask, rng.integers(3, 64, mask.shape), 0).astype(np.int32)
    states = model(
        input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask)
    ).last_hidden_state
    save(model, "t5gemma", ids=ids, mask=mask, states=states)


def write_vae(rng: np.random.Generator) -> None:
    """Two levels, attention in the middle."""
    model = random(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=16,
        )
    )
    images = rng.uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32)
    posterior = model.encode(channels_first(images)).latent_dist
    latents = rng.standard_normal((2, 4, 6, 4)).astype(np.float32)
    decoded = model.decode(channels_first(latents)).sample
    save(
        model,
        "vae",
        images=images,
        mean=posterior.mean.permute(0, 2, 3, 1),
        logvar=posterior.logvar.permute(0, 2, 3, 1),
        latents=latents,
        decoded=decoded.permute(0, 2, 3, 1),
    )


def write_dc_ae(name: str, rng: np.random.Generator, settings: dict[str, Any]) -> None:
    """Three levels; linear attention on the first batch and quadratic attention on the second."""
    types = ("ResBlock", "EfficientViTBlock", "EfficientViTBlock")
    narrow: dict[str, Any] = {
        "latent_channels": 4,
        "attention_head_dim": 4,
        "encoder_block_out_channels": (4, 8, 8),
        "decoder_block_out_channels": (4, 8, 8),
        "encoder_block_types": types,
        "decoder_block_types": types,
    }
    model = random(AutoencoderDC(**narrow | settings))
    for path, buffer in model.named_buffers():
        if path.endswith("running_mean"):
            buffer.normal_()
        elif path.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    arrays: dict[str, Any] = {}
    for form, (height, width) in {"linear": (12, 16), "quadratic": (8, 4)}.items():
        images = rng.uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
        latents = model.encode(channels_first(images)).latent
        decoded = model.decode(latents).sample
        arrays[f"{form}_images"] = images
        arrays[f"{form}_latents"] = latents.permute(0, 2, 3, 1)
        arrays[f"{form}_decoded"] = decoded.permute(0, 2, 3, 1)
    save(model, name, **arrays)


def random(model: Any) -> Any:
    """The model with no parameter left at the 0 or 1 that it begins with."""
    for parameter in model.parameters():
        parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    return model.eval()


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def save(model: Any, name: str, **arrays: Any) -> None:
    model.save_pretrained(GOLDEN / name)
    np.savez_compressed(
        GOLDEN / name / "golden.npz", **{key: np.asarray(array) for key, array in arrays.items()}
    )


if __name__ == "__main__":
    main()
