"""CLIP (Radford et al. 2021, arXiv:2103.00020): a causal text transformer and a vision transformer.

Both are stacks of ``x = x + attention(norm(x)); x = x + mlp(norm(x))``. The text tower's last
hidden states, after the final norm, condition the image model. Its state at the end-of-text token
is the pooled vector of the caption. For training, the pooled vectors of both towers are projected
to one space and normalised to u_i and v_j, and the softmax of ``exp(logit_scale) * u_i . v_j`` at
i = j is maximised, over rows and over columns. Parameters have the names of Hugging Face's
CLIPModel. Activations have the parameters' dtype; norms and softmax are computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from pinxit.arrays import ArrayLike
from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.clip_config import (
    LEGACY_EOS,
    TOWERS,
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    TowerConfig,
)
from pinxit.encoders.config_fields import naming
from pinxit.encoders.weights import Sharding, StoredTensor, Tree

WEIGHTS = "model.safetensors"
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATION_FUNCTIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
NOT_OF_TOWER: dict[str | None, tuple[str, ...]] = {
    "text": ("vision_model.", "visual_projection.", "logit_scale"),
    "vision": ("text_model.", "text_projection.", "logit_scale"),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TowerOutput:
    """The outputs of one tower."""

    hidden: Float[Array, "b l e"]
    """The last hidden states. As in Hugging Face, the text tower's have passed its final norm."""
    pooled: Float[Array, "b e"]
    """The state at the end-of-text token, or at the class token, after the final norm."""
    projected: Float[Array, "b p"] | None
    """The pooled vector in the common space, not normalised, or None without a projection."""


def init_clip(config: ClipConfig, key: Array) -> Tree:
    """Initialises float32 parameters for training from scratch."""
    params = weights.init_from_shapes(clip_shapes(config), key)
    for name, tower in (("text_model", config.text), ("vision_model", config.vision)):
        if tower is not None:
            for layer in params[name]["encoder"]["layers"].values():
                for last in (layer["self_attn"]["out_proj"], layer["mlp"]["fc2"]):
                    last["kernel"] /= math.sqrt(2 * tower.num_hidden_layers)
    if "logit_scale" in params:
        params["logit_scale"] = jnp.asarray(config.logit_scale_init_value, jnp.float32)
    return params


@jax.named_scope("clip_text")
def text_forward(params: Tree, config: ClipConfig, token_ids: Int[ArrayLike, "b l"]) -> TowerOutput:
    """Runs the text tower. It is causal, so padding does not affect the tokens before it."""
    tower, model = text_tower(config), params["text_model"]
    length = token_ids.shape[1]
    if length > (longest := tower.max_position_embeddings):
        raise ValueError(f"{length} tokens; this text tower reads at most {longest}")
    embeddings = model["embeddings"]
    x = embeddings["token_embedding"]["embedding"][jnp.asarray(token_ids)]
    x = x + embeddings["position_embedding"]["embedding"][None, :length]
    x = _encoder(model["encoder"], tower, x, causal=True)
    hidden = _layer_norm(model["final_layer_norm"], tower, x)
    pooled = hidden[jnp.arange(len(hidden)), end_of_text(tower, token_ids)]
    return TowerOutput(hidden, pooled, _projected(params.get("text_projection"), pooled))


@jax.named_scope("clip_image")
def image_forward(
    params: Tree, config: ClipConfig, pixels: Float[ArrayLike, "b hi wi ci"]
) -> TowerOutput:
    """Runs the vision tower on images from `normalise`."""
    tower, model = vision_tower(config), params["vision_model"]
    if pixels.shape[1:] != (tower.image_size, tower.image_size, tower.num_channels):
        size = f"{tower.image_size}x{tower.image_size}x{tower.num_channels}"
        raise ValueError(f"images are {pixels.shape[1:]}; this vision tower reads {size}")
    embeddings = model["embeddings"]
    kernel = embeddings["patch_embedding"]["kernel"]
    x = jax.lax.conv_general_dilated(
        jnp.asarray(pixels).astype(kernel.dtype),
        kernel,
        window_strides=(tower.patch_size, tower.patch_size),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    first = jnp.broadcast_to(
        embeddings["class_embedding"][None, None], (len(x), 1, tower.hidden_size)
    )
    x = jnp.concatenate([first, rearrange(x, "b h w e -> b (h w) e")], axis=1)
    x = x + embeddings["position_embedding"]["embedding"][None]
    x = _layer_norm(model["pre_layrnorm"], tower, x)
    hidden = _encoder(model["encoder"], tower, x, causal=False)
    pooled = _layer_norm(model["post_layernorm"], tower, hidden[:, 0])
    return TowerOutput(hidden, pooled, _projected(params.get("visual_projection"), pooled))


def text_tower(config: ClipConfig) -> ClipTextConfig:
    """Returns the text tower's config; raises `ValueError` if there is none."""
    if config.text is None:
        raise UsageError("this CLIP has no text tower")
    return config.text


def vision_tower(config: ClipConfig) -> ClipVisionConfig:
    """Returns the vision tower's config; raises `ValueError` if there is none."""
    if config.vision is None:
        raise UsageError("this CLIP has no vision tower")
    return config.vision


def normalise(images: Float[ArrayLike, "b hi wi 3"], *, size: int) -> Float[Array, "b s s 3"]:
    """Prepares images in [-1, 1] for the vision tower.

    They are resized to `size` x `size` pixels and standardised per channel with CLIP's mean and
    standard deviation.
    """
    images = jnp.asarray(images)
    if images.shape[1:3] != (size, size):
        shape = (images.shape[0], size, size, 3)
        images = jax.image.resize(images, shape, method="cubic", antialias=True)
    mean, deviation = (_wide(jnp.array(x), images) for x in (IMAGE_MEAN, IMAGE_STD))
    return ((images + 1) / 2 - mean) / deviation


def contrastive_loss(
    text: Float[Array, "b p"], image: Float[Array, "b p"], logit_scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns CLIP's symmetric cross-entropy over the pairs of a batch, from projected vectors."""
    text, image = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (text, image))
    logits = jnp.exp(logit_scale) * text @ image.T
    losses = [-jnp.diag(jax.nn.log_softmax(logits, axis=axis)).mean() for axis in (0, 1)]
    return (losses[0] + losses[1]) / 2


def end_of_text(config: ClipTextConfig, token_ids: Int[ArrayLike, "b l"]) -> Int[Array, " b"]:
    """Returns the position of the first end-of-text token of each row."""
    token_ids = jnp.asarray(token_ids)
    if config.eos_token_id == LEGACY_EOS:
        return jnp.argmax(token_ids, axis=1)
    return jnp.argmax(token_ids == config.eos_token_id, axis=1)


def save_clip(directory: str | Path, params: Tree, config: ClipConfig) -> None:
    """Writes a directory that transformers opens as CLIPModel, or as the model of its one tower."""
    weights.save_directory(directory, config.to_json(), params=params, weights=WEIGHTS)


def load_clip(
    source: str | Path,
    *,
    subfolder: str = "",
    only: str | None = None,
    dtype: str = "float32",
    sharding: Sharding | None = None,
) -> tuple[Tree, ClipConfig]:
    """Reads parameters and config from a Hugging Face directory.

    `only` is "text" or "vision" for one tower, or None for all towers of the file.
    """
    config, tensors = open_clip(source, subfolder=subfolder, only=only)
    params = weights.from_tensors(
        tensors, clip_shapes(config), source=source, dtype=dtype, sharding=sharding
    )
    return params, config


def open_clip(
    source: str | Path, *, subfolder: str = "", only: str | None = None
) -> tuple[ClipConfig, dict[str, StoredTensor]]:
    """Returns the config and the unread tensors that `load_clip` reads, under their usual names."""
    value, tensors = weights.load_directory(source, subfolder=subfolder, weights=(WEIGHTS,))
    with naming(source, subfolder=subfolder):
        config = ClipConfig.from_json(value)
    if only is not None:
        if only not in TOWERS or getattr(config, only) is None:
            towers = [name for name in TOWERS if getattr(config, name) is not None]
            raise UsageError(f"only: {source} has no tower {only!r}; it has {', '.join(towers)}")
        config = replace(config, vision=None) if only == "text" else replace(config, text=None)
    tensors = {_prefixed(name, config): tensor for name, tensor in tensors.items()}
    alone = config.text is None or config.vision is None
    if alone and not tensors.keys() & {"text_projection.weight", "visual_projection.weight"}:
        config = replace(config, projection_dim=None)

    def ignore(name: str) -> bool:
        return name.endswith(".position_ids") or name.startswith(NOT_OF_TOWER.get(only, ()))

    return config, {name: tensor for name, tensor in tensors.items() if not ignore(name)}


def clip_shapes(config: ClipConfig) -> Tree:
    """Returns the tree of parameter shapes."""
    shapes: Tree = {}
    if (text := config.text) is not None:
        width = text.hidden_size
        shapes["text_model"] = {
            "embeddings": {
                "token_embedding": {"embedding": (text.vocab_size, width)},
                "position_embedding": {"embedding": (text.max_position_embeddings, width)},
            },
            "encoder": _encoder_shape(text),
            "final_layer_norm": _norm_shape(width),
        }
    if (vision := config.vision) is not None:
        width, patch = vision.hidden_size, vision.patch_size
        positions = (vision.image_size // patch) ** 2 + 1
        shapes["vision_model"] = {
            "embeddings": {
                "class_embedding": (width,),
                "patch_embedding": {"kernel": (patch, patch, vision.num_channels, width)},
                "position_embedding": {"embedding": (positions, width)},
            },
            "pre_layrnorm": _norm_shape(width),
            "encoder": _encoder_shape(vision),
            "post_layernorm": _norm_shape(width),
        }
    towers = {"text_projection": config.text, "visual_projection": config.vision}
    for name, tower in towers.items():
        if tower is not None and config.projection_dim is not None:
            shapes[name] = {"kernel": (tower.hidden_size, config.projection_dim)}
    return shapes if None in (config.text, config.vision) else shapes | {"logit_scale": ()}


def _norm_shape(width: int) -> Tree:
    return {"scale": (width,), "bias": (width,)}


def _encoder_shape(config: TowerConfig) -> Tree:
    width, inner = config.hidden_size, config.intermediate_size

    def linear(before: int, after: int) -> Tree:
        return {"kernel": (before, after), "bias": (after,)}

    layer = {
        "layer_norm1": _norm_shape(width),
        "self_attn": {
            name: linear(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        },
        "layer_norm2": _norm_shape(width),
        "mlp": {"fc1": linear(width, inner), "fc2": linear(inner, width)},
    }
    return {"layers": {str(i): layer for i in range(config.num_hidden_layers)}}


def _encoder(params: Tree, config: TowerConfig, x: Float[Array, "b l e"], *, causal: bool) -> Array:
    activation = ACTIVATION_FUNCTIONS[config.hidden_act]
    for i in range(config.num_hidden_layers):
        layer = params["layers"][str(i)]
        attention, mlp = layer["self_attn"], layer["mlp"]
        h = _layer_norm(layer["layer_norm1"], config, x)
        heads = (_linear(attention[name], h) for name in ("q_proj", "k_proj", "v_proj"))
        q, k, v = (
            rearrange(y, "b l (k f) -> b l k f", k=config.num_attention_heads) for y in heads
        )
        h = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
        x = x + _linear(attention["out_proj"], rearrange(h, "b l k f -> b l (k f)"))
        h = activation(_linear(mlp["fc1"], _layer_norm(layer["layer_norm2"], config, x)))
        x = x + _linear(mlp["fc2"], h)
    return x


def _layer_norm(params: Tree, config: TowerConfig, x: Float[Array, "*b e"]) -> Array:
    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(wide).mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(variance + config.layer_norm_eps)
    return (wide * _wide(params["scale"], x) + _wide(params["bias"], x)).astype(x.dtype)


def _linear(params: Tree, x: Array) -> Array:
    return x @ params["kernel"] + _wide(params["bias"], x)


def _wide(vector: Float[Array, " e"], x: Array) -> Array:
    """Prepends axes of length 1 to `vector` until it has as many axes as `x`."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def _projected(params: Tree | None, pooled: Float[Array, "b e"]) -> Array | None:
    return None if params is None else pooled @ params["kernel"]


def _prefixed(name: str, config: ClipConfig) -> str:
    """Adds the tower's name to a tensor name, since some files of one tower omit it."""
    if not name.startswith(("embeddings.", "encoder.", "final_", "pre_", "post_")):
        return name
    return f"{'text_model' if config.vision is None else 'vision_model'}.{name}"
