"""Writes pipeline directories as diffusers writes them, with numpy, safetensors and JSON alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from pinxit.models.diffusers_prx import prx_config, to_prx
from pinxit.models.transformer import TransformerConfig, init_params

WEIGHTS = "diffusion_pytorch_model.safetensors"
LATENT = TransformerConfig(
    hidden_size=16,
    depth=2,
    num_heads=2,
    patch_size=2,
    in_channels=2,
    context_dim=16,
    mlp_ratio=2.0,
    modulation="per_block",
)
PIXEL = dataclasses.replace(
    LATENT, in_channels=3, patch_size=4, bottleneck_size=8, resolution_embeds=True,
    prediction="latents",
)  # fmt: skip
"""Networks that fit the encoders of the fixture `bundle`."""


def awake(config: TransformerConfig, seed: int = 0) -> dict[str, Any]:
    """Returns parameters of usual size with nothing at zero, so that every term counts."""
    leaves, tree = jax.tree.flatten(init_params(config, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    noisy = [np.asarray(x) + 0.1 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def change_json(path: Path, **changes: Any) -> None:
    """Sets fields of a JSON file; None removes a field."""
    value = {**json.loads(path.read_text()), **changes}
    write_json(path, {name: v for name, v in value.items() if v is not None})


def write_prx(
    directory: Path,
    bundle: Path,
    config: TransformerConfig = LATENT,
    params: dict[str, Any] | None = None,
    *,
    dtype: Any = np.float32,
    shards: int = 1,
    size: int = 16,
) -> Path:
    """Writes a PRXPipeline, or for a pixel model a PRXPixelPipeline, with the encoders of `bundle`.

    The transformer's tensors are split over `shards` files.
    """
    pixels = config.prediction == "latents"
    index: dict[str, Any] = {
        "_class_name": "PRXPixelPipeline" if pixels else "PRXPipeline",
        "_diffusers_version": "0.42.1",
        "default_sample_size": size,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "PRXTransformer2DModel"],
    }
    if pixels:
        index |= {"noise_scale": 1.0, "prompt_max_tokens": 16}
    else:
        index["vae"] = ["diffusers", "AutoencoderKL"]
    write_json(directory / "model_index.json", index)
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": False,
        "shift_terminal": None,
    }
    write_json(directory / "scheduler" / "scheduler_config.json", scheduler)
    for part in ("text_encoder", "tokenizer", *([] if pixels else ["vae"])):
        shutil.copytree(bundle / part, directory / part)
    write_json(directory / "transformer" / "config.json", prx_config(config))
    tensors = to_prx(awake(config) if params is None else params, config)
    write_tensors(directory / "transformer", tensors, dtype=dtype, shards=shards)
    return directory


def write_tensors(
    folder: Path, tensors: dict[str, np.ndarray], *, dtype: Any = np.float32, shards: int = 1
) -> None:
    """Writes tensors in one file, or in several with their index."""
    cast = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    if shards == 1:
        save_file(cast, folder / WEIGHTS, metadata={"format": "pt"})
        return
    stem, places = WEIGHTS.removesuffix(".safetensors"), {}
    for i in range(shards):
        name = f"{stem}-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: cast[key] for key in sorted(cast)[i::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in cast.values())
    write_json(
        folder / f"{WEIGHTS}.index.json",
        {"metadata": {"total_size": total}, "weight_map": places},
    )


def tensors_of(directory: Path) -> dict[str, np.ndarray]:
    """Returns the transformer's tensors of a directory with one file of weights."""
    return load_file(directory / "transformer" / WEIGHTS)
