"""T5Gemma's encoder (Zhang et al. 2025, arXiv:2504.06225): Gemma 2's layers (arXiv:2408.00118)
without the causal mask.

The embedding of a token is multiplied by ``sqrt(width)``. Each layer has a norm before and after
both of its parts:

    x = x + norm(attention(norm(x)))
    x = x + norm(mlp(norm(x)))

and the last layer is followed by a norm. The norm divides by the root mean square and multiplies by
``1 + scale``, so that a stored scale of 0 leaves the result as it is. The attention of query i to
key j of a head is

    softmax_j(c tanh(q_i . k_j / (c sqrt(s)))) v_j

with the soft cap c (``attn_logit_softcapping``) and the scalar s (``query_pre_attn_scalar``).
Queries and keys are rotated by their positions (RoPE: Su et al. 2021, arXiv:2104.09864, the first
half of a head's dimensions paired with the second). Several heads of queries share one head of keys
and values. A layer of type "sliding_attention" reaches `sliding_window` tokens to either side, and
one of type "full_attention" reaches all. The inner layer is ``down(gelu(gate x) * up x)``.

Parameters have the names of Hugging Face's T5GemmaEncoder. The decoder of a whole T5Gemma is not
read. Activations have the dtype of the parameters, float32 or bfloat16. float16 is refused, since
Gemma 2's activations exceed its range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from pinxit.arrays import ArrayLike
from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.config_fields import finite_positive, known_fields, naming, object_in
from pinxit.encoders.weights import Sharding, StoredTensor, Tree

WEIGHTS = "model.safetensors"
WHOLE, MODULE = "t5gemma", "t5_gemma_module"
"""The ``model_type`` of a config.json that contains the encoder's config, and of that one alone."""
ACTIVATION = "gelu_pytorch_tanh"
SLIDING, FULL = "sliding_attention", "full_attention"
PREFIXES = ("", "encoder.", "model.encoder.")
"""The prefixes that the encoder's tensors may have: those of a T5GemmaEncoder, of a
T5GemmaEncoderModel or T5GemmaModel, and of a model with a head."""
EMBEDDING = "embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class T5GemmaConfig:
    """The encoder's shape, with the field names and defaults of Hugging Face's config.json.

    The defaults are those of the encoder of T5Gemma 2B-2B.
    """

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    """The number of heads of queries: a multiple of `num_key_value_heads`."""
    num_key_value_heads: int = 4
    head_dim: int = 256
    """The width of one head, an even number; it does not depend on `hidden_size`."""
    hidden_activation: str = ACTIVATION
    max_position_embeddings: int = 8192
    """The length of the rows that the encoder was made for."""
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    """The base of the rotations' wavelengths. Newer files have it in ``rope_parameters``."""
    query_pre_attn_scalar: float = 256.0
    attn_logit_softcapping: float | None = 50.0
    """The largest attention score, or None for no limit."""
    sliding_window: int | None = 4096
    """The largest distance that a layer of type "sliding_attention" reaches, in tokens."""
    layer_types: tuple[str, ...] | None = None
    """The type of each layer. None alternates, beginning with "sliding_attention"."""
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "pad_token_id" else 1
            if isinstance(value, int) and value < least:
                raise UsageError(f"{name} is {value}; it must be at least {least}")
            if isinstance(value, float):
                finite_positive(name, value)
        if self.hidden_activation != ACTIVATION:
            raise UsageError(
                f"hidden_activation is {self.hidden_activation!r}; known: {ACTIVATION}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UsageError(
                f"num_attention_heads is {self.num_attention_heads}; it must be a multiple of "
                f"num_key_value_heads, which is {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise UsageError(f"head_dim is {self.head_dim}; it must be even")
        self._check_layer_types()

    def _check_layer_types(self) -> None:
        kinds = self.layer_types
        if kinds is not None and len(kinds) != self.num_hidden_layers:
            raise UsageError(
                f"layer_types is {list(kinds)!r}; it must have one type for each of the "
                f"{self.num_hidden_layers} layers"
            )
        if unknown := [kind for kind in kinds or () if kind not in (SLIDING, FULL)]:
            raise UsageError(
                f"layer_types is {list(kinds or ())!r}, with {unknown[0]!r}; known: "
                f"{SLIDING}, {FULL}"
            )
        if self.sliding_window is None and SLIDING in self.types:
            raise UsageError(f"sliding_window is None, but layer_types has {SLIDING}")

    @property
    def types(self) -> tuple[str, ...]:
        """The type of each layer."""
        alternating = ((SLIDING, FULL)[i % 2] for i in range(self.num_hidden_layers))
        return tuple(alternating) if self.layer_types is None else self.layer_types

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> T5GemmaConfig:
        """Reads the config.json of a T5GemmaEncoder, or of a model that has one as ``encoder``."""
        kind = value.get("model_type")
        if kind == WHOLE:
            part = object_in(value, "encoder")
            if part is None:
                raise UsageError(f"encoder is missing; a config of type {WHOLE!r} must have it")
            kind = part.get("model_type", MODULE)
            value = part
        if kind != MODULE:
            raise UsageError(f"model_type is {kind!r}; known: {WHOLE}, {MODULE}")
        for name in ("attention_bias", "is_decoder"):
            if value.get(name, False) is not False:
                raise UsageError(f"{name} is {value[name]!r}; known: false")
        fields = known_fields(cls, value)
        for name in ("attn_logit_softcapping", "sliding_window"):
            if name in value and value[name] is None:
                fields[name] = None
        return cls(**fields | _rope_fields(cls, value))

    def to_json(self) -> dict[str, Any]:
        """Returns a config.json that contains the encoder's config, as transformers 5 writes it.

        Diffusers needs this form: from a T5GemmaEncoder's own config.json, its pipeline makes an
        encoder of the default sizes.
        """
        fields = asdict(self)
        theta = fields.pop("rope_theta")
        encoder = {
            "model_type": MODULE,
            **fields,
            "layer_types": list(self.types),
            "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
            "query_pre_attn_scalar": _whole(self.query_pre_attn_scalar),
            "attention_bias": False,
            "is_decoder": False,
            "tie_word_embeddings": True,
            "bos_token_id": 2,
            "eos_token_id": 1,
        }
        return {
            "architectures": ["T5GemmaEncoder"],
            "model_type": WHOLE,
            "is_encoder_decoder": False,
            "vocab_size": self.vocab_size,
            "dtype": "float32",
            "pad_token_id": self.pad_token_id,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "encoder": encoder,
        }


def init_t5gemma(config: T5GemmaConfig, key: Array) -> Tree:
    """Initialises float32 parameters for training from scratch; scales of norms are 0."""
    params = weights.init_from_shapes(t5gemma_shapes(config), key)
    flat = weights.flatten(params)
    return weights.unflatten(
        {path: 0.0 * x if path.endswith(".scale") else x for path, x in flat.items()}
    )


def t5gemma_shapes(config: T5GemmaConfig) -> Tree:
    """Returns the tree of parameter shapes."""
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = {"q": (width, queries), "k": (width, keys), "v": (width, keys)}
    attention["o"] = (queries, width)
    mlp = {"gate": (width, inner), "up": (width, inner), "down": (inner, width)}
    sides = [f"{side}_{part}" for side in ("pre", "post") for part in ("self_attn", "feedforward")]

    def layer() -> Tree:
        return {
            "self_attn": {f"{name}_proj": {"kernel": shape} for name, shape in attention.items()},
            "mlp": {f"{name}_proj": {"kernel": shape} for name, shape in mlp.items()},
            **{f"{side}_layernorm": {"scale": (width,)} for side in sides},
        }

    return {
        "embed_tokens": {"embedding": (config.vocab_size, width)},
        "layers": {str(i): layer() for i in range(config.num_hidden_layers)},
        "norm": {"scale": (width,)},
    }


@jax.named_scope("t5gemma")
def t5gemma_forward(
    params: Tree,
    config: T5GemmaConfig,
    token_ids: Int[ArrayLike, "b l"],
    mask: Bool[ArrayLike, "b l"],
) -> Float[Array, "b l e"]:
    """Returns the last hidden states after the final norm.

    No token attends to the tokens where `mask` is False. Positions are counted from the start of
    the row, whether it begins with padding or not.
    """
    embedding = params["embed_tokens"]["embedding"]
    weights.refuse_float16(embedding.dtype, "T5Gemma")
    length = token_ids.shape[1]
    rotation = _rotation(config, length)
    keys = rearrange(jnp.asarray(mask), "b s -> b 1 1 1 s")
    visible = {FULL: keys, SLIDING: keys & _window(config, length)}
    x = embedding[jnp.asarray(token_ids)]
    x = x * jnp.asarray(math.sqrt(config.hidden_size), x.dtype)
    for i, kind in enumerate(config.types):
        layer = params["layers"][str(i)]
        h = _norm(layer["pre_self_attn_layernorm"], config, x)
        h = _attention(layer["self_attn"], config, h, rotation=rotation, visible=visible[kind])
        x = x + _norm(layer["post_self_attn_layernorm"], config, h)
        h = _mlp(layer["mlp"], _norm(layer["pre_feedforward_layernorm"], config, x))
        x = x + _norm(layer["post_feedforward_layernorm"], config, h)
    return _norm(params["norm"], config, x)


def save_t5gemma(directory: str | Path, params: Tree, config: T5GemmaConfig) -> None:
    """Writes a directory that diffusers' PRX pipelines open as their T5GemmaEncoder."""
    weights.save_directory(directory, config.to_json(), params=params, weights=WEIGHTS)


def load_t5gemma(
    source: str | Path,
    *,
    subfolder: str = "",
    dtype: str = "float32",
    sharding: Sharding | None = None,
) -> tuple[Tree, T5GemmaConfig]:
    """Reads parameters and config from a directory or repository of an encoder or whole T5Gemma.

    The parameters are converted to `dtype`. `sharding` returns the sharding of a parameter from its
    path (``layers.0.self_attn.q_proj.kernel``) and shape. Parameters are read and placed on the
    devices one by one.
    """
    weights.refuse_float16(dtype, "T5Gemma")
    config, tensors = open_t5gemma(source, subfolder=subfolder)
    shapes = t5gemma_shapes(config)
    params = weights.from_tensors(tensors, shapes, source=source, dtype=dtype, sharding=sharding)
    return params, config


def open_t5gemma(
    source: str | Path, *, subfolder: str = ""
) -> tuple[T5GemmaConfig, dict[str, StoredTensor]]:
    """Returns the config and the unread tensors that `load_t5gemma` reads, without a prefix."""
    value, tensors = weights.load_directory(source, subfolder=subfolder, weights=(WEIGHTS,))
    with naming(source, subfolder=subfolder):
        config = T5GemmaConfig.from_json(value)
    prefix = next((p for p in PREFIXES if p + EMBEDDING in tensors), "")
    if prefix:  # the rest of such a file is the decoder and its head
        inside = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        tensors = {name.removeprefix(prefix): tensor for name, tensor in inside.items()}
    return config, tensors


def _rope_fields(cls: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `rope_theta` from ``rope_parameters`` or ``rope_scaling``, if one of them has it.

    Raises `UsageError` for rotations other than the plain ones.
    """
    fields: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        part = object_in(value, name)
        if part is None:
            continue
        kind = part.get("rope_type", part.get("type", "default"))
        if kind != "default":
            raise UsageError(f"{name} has the rope_type {kind!r}; known: default")
        if unknown := set(part) - {"rope_type", "type", "rope_theta"}:
            raise UsageError(f"{name} has {min(unknown)}; known: rope_theta, rope_type")
        fields |= known_fields(cls, part)
    return fields


def _whole(value: float) -> int | float:
    """Returns a whole number as int, since transformers refuses 256.0 for some settings."""
    return int(value) if value == int(value) else value


def _norm(params: Tree, config: T5GemmaConfig, x: Float[Array, "b l e"]) -> Array:
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + config.rms_norm_eps)
    return (wide * (1 + params["scale"].astype(jnp.float32))[None, None]).astype(x.dtype)


def _rotation(config: T5GemmaConfig, length: int) -> Float[np.ndarray, "2 l half"]:
    """Returns the cosines and sines of each position's angles."""
    half = config.head_dim // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(2 / config.head_dim)
    frequencies = 1 / np.float32(config.rope_theta) ** exponents
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)])


def _rotated(
    x: Float[Array, "b l k f"], rotation: Float[np.ndarray, "2 l half"]
) -> Float[Array, "b l k f"]:
    cos, sin = (rearrange(part, "l f -> 1 l 1 f") for part in rotation)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _window(config: T5GemmaConfig, length: int) -> Bool[np.ndarray, "1 1 1 l l"]:
    """Returns whether the distance of a query and a key is at most `sliding_window`."""
    positions = np.arange(length)
    distance = np.abs(positions[:, None] - positions[None, :])
    reach = length if config.sliding_window is None else config.sliding_window
    return rearrange(distance <= reach, "q s -> 1 1 1 q s")


def _attention(
    params: Tree,
    config: T5GemmaConfig,
    x: Float[Array, "b l e"],
    *,
    rotation: Float[np.ndarray, "2 l half"],
    visible: Bool[Array, "b 1 1 q s"],
) -> Array:
    heads = (x @ params[f"{name}_proj"]["kernel"] for name in "qkv")
    q, k, v = (rearrange(y, "b l (k f) -> b l k f", f=config.head_dim) for y in heads)
    q, k = _rotated(q, rotation), _rotated(k, rotation)
    q = rearrange(q, "b l (k g) f -> b l k g f", k=config.num_key_value_heads)
    scores = jnp.einsum("bqkgf,bskf->bkgqs", q, k, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(config.query_pre_attn_scalar)
    if (cap := config.attn_logit_softcapping) is not None:
        scores = cap * jnp.tanh(scores / cap)
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    h = jnp.einsum("bkgqs,bskf->bqkgf", jax.nn.softmax(scores).astype(x.dtype), v)
    return rearrange(h, "b l k g f -> b l (k g f)") @ params["o_proj"]["kernel"]


def _mlp(params: Tree, x: Float[Array, "b l e"]) -> Array:
    gate, up, down = (params[f"{name}_proj"]["kernel"] for name in ("gate", "up", "down"))
    return (jax.nn.gelu(x @ gate, approximate=True) * (x @ up)) @ down
