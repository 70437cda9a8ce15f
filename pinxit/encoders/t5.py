"""T5's encoder (Raffel et al. 2020, arXiv:1910.10683; v1.1: Shazeer 2020, arXiv:2002.05202).

The encoder is a stack of ``x = x + attention(norm(x)); x = x + mlp(norm(x))``, with a norm after
the last block. The norm divides by the root mean square. It subtracts no mean and has no bias, and
no other layer of T5 has a bias. Attention is

    softmax(q_i . k_j + r[bucket(j - i)]) v_j,   without the usual 1 / sqrt(width of a head)

where r has one number per bucket and head. It is a parameter of the first block, and all blocks use
it. Half of the buckets are for keys to the right of the query, and half are for the others. In each
half, the first half of the buckets holds one distance each. The others widen by a constant factor
up to `relative_attention_max_distance`; all distances beyond share the last bucket. The inner layer
is ``wo(gelu(wi_0 x) * wi_1 x)`` in v1.1 and ``wo(relu(wi x))`` before.

Parameters have the names of Hugging Face's T5EncoderModel. The decoder of a full T5 is not read.
Activations have the dtype of the parameters, float32 or bfloat16. float16 is refused, since the
activations of the larger T5s exceed its range.
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
from pinxit.encoders.config_fields import finite_positive, known_fields, naming
from pinxit.encoders.weights import Sharding, StoredTensor, Tree

WEIGHTS = "model.safetensors"
ACTIVATIONS = {
    "gated-gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
"""The activation functions by ``feed_forward_proj``. Despite its name, "gated-gelu" (v1.1) uses the
tanh approximation of GELU."""
NOT_OF_ENCODER = ("decoder.", "lm_head.")
EMBEDDING, COPY = "shared.weight", "encoder.embed_tokens.weight"
"""The two names of the embedding matrix; a file has either or both."""


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """The encoder's shape, with the field names and defaults of Hugging Face's config.json."""

    vocab_size: int = 32128
    """The number of rows of the embedding: at least the tokenizer's size, rounded up."""
    d_model: int = 512
    d_kv: int = 64
    """The width of one head; ``num_heads * d_kv`` need not equal `d_model`."""
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        finite_positive("layer_norm_epsilon", self.layer_norm_epsilon)
        if self.feed_forward_proj not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UsageError(f"feed_forward_proj is {self.feed_forward_proj!r}; known: {known}")
        buckets, distance = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        )
        if buckets % 4 or distance <= buckets // 4:
            raise UsageError(
                f"relative_attention_num_buckets is {buckets} and relative_attention_max_distance "
                f"is {distance}; the first must be a multiple of 4, and the second must be more "
                "than a quarter of the first"
            )

    @property
    def gated(self) -> bool:
        """Whether the inner layer multiplies two projections (v1.1)."""
        return self.feed_forward_proj.startswith("gated-")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> T5Config:
        """Reads the config.json of a T5EncoderModel or of a whole T5 (also Flan-T5)."""
        kind = value.get("model_type")
        if kind != "t5":
            why = "; umt5 differs: each block has its own position bias" if kind == "umt5" else ""
            raise UsageError(f"model_type is {kind!r}; known: t5{why}")
        return cls(**known_fields(cls, value))

    def to_json(self) -> dict[str, Any]:
        """Returns Hugging Face's config.json for a T5EncoderModel."""
        return {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            "is_encoder_decoder": False,
            "use_cache": False,
            "torch_dtype": "float32",
            "pad_token_id": 0,
            "eos_token_id": 1,
            **asdict(self),
        }


def init_t5(config: T5Config, key: Array) -> Tree:
    """Initialises float32 parameters for training from scratch.

    Embeddings have unit standard deviation. The query projection is scaled down by
    ``1 / sqrt(d_kv)``, since attention does not scale its scores.
    """
    params = weights.init_from_shapes(t5_shapes(config), key)
    params["shared"]["embedding"] /= weights.EMBEDDING_DEVIATION
    for block in params["encoder"]["block"].values():
        block["layer"]["0"]["SelfAttention"]["q"]["kernel"] /= math.sqrt(config.d_kv)
    return params


def t5_shapes(config: T5Config) -> Tree:
    """Returns the tree of parameter shapes."""
    width, inner = config.d_model, config.num_heads * config.d_kv
    into, out = {"kernel": (width, inner)}, {"kernel": (inner, width)}
    wide = {"kernel": (width, config.d_ff)}
    mlp = {name: wide for name in (("wi_0", "wi_1") if config.gated else ("wi",))}
    mlp["wo"] = {"kernel": (config.d_ff, width)}
    bias = {"embedding": (config.relative_attention_num_buckets, config.num_heads)}

    def block(i: int) -> Tree:
        attention = {"q": into, "k": into, "v": into, "o": out}
        first = {"relative_attention_bias": bias} if i == 0 else {}
        layers = [{"SelfAttention": attention | first}, {"DenseReluDense": mlp}]
        return {"layer": {str(j): x | {"layer_norm": _norm(width)} for j, x in enumerate(layers)}}

    return {
        "shared": {"embedding": (config.vocab_size, width)},
        "encoder": {
            "block": {str(i): block(i) for i in range(config.num_layers)},
            "final_layer_norm": _norm(width),
        },
    }


@jax.named_scope("t5")
def t5_forward(
    params: Tree, config: T5Config, token_ids: Int[ArrayLike, "b l"], mask: Bool[ArrayLike, "b l"]
) -> Float[Array, "b l e"]:
    """Returns the last hidden states after the final norm.

    No token attends to the tokens where `mask` is False.
    """
    embedding, blocks = params["shared"]["embedding"], params["encoder"]["block"]
    weights.refuse_float16(embedding.dtype, "T5")
    first = blocks["0"]["layer"]["0"]["SelfAttention"]["relative_attention_bias"]["embedding"]
    buckets = relative_buckets(config, token_ids.shape[1])
    bias = rearrange(first[buckets], "q s k -> 1 k q s")
    keys = rearrange(jnp.asarray(mask), "b s -> b 1 1 s")
    x = embedding[jnp.asarray(token_ids)]
    for i in range(config.num_layers):
        attention, mlp = (blocks[str(i)]["layer"][name] for name in ("0", "1"))
        h = _rms_norm(attention["layer_norm"], config, x)
        x = x + _attention(attention["SelfAttention"], config, h, bias=bias, keys=keys)
        x = x + _mlp(mlp["DenseReluDense"], config, _rms_norm(mlp["layer_norm"], config, x))
    return _rms_norm(params["encoder"]["final_layer_norm"], config, x)


def relative_buckets(config: T5Config, length: int) -> Int[np.ndarray, "l l"]:
    """Returns the bucket of every (query, key) pair of positions."""
    half = config.relative_attention_num_buckets // 2
    exact = half // 2
    ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
    distance = np.abs(ahead)
    growth = np.float32(math.log(config.relative_attention_max_distance / exact))
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    far = exact + (np.log(ratio) / growth * np.float32(half - exact)).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (bucket + half * (ahead > 0)).astype(np.int32)


def save_t5(directory: str | Path, params: Tree, config: T5Config) -> None:
    """Writes a directory that transformers opens as T5EncoderModel."""
    weights.save_directory(directory, config.to_json(), params=params, weights=WEIGHTS)


def load_t5(
    source: str | Path,
    *,
    subfolder: str = "",
    dtype: str = "float32",
    sharding: Sharding | None = None,
) -> tuple[Tree, T5Config]:
    """Reads parameters and config from a directory or repository of a T5EncoderModel or whole T5.

    The parameters are converted to `dtype`. `sharding` returns the sharding of a parameter from its
    path (``encoder.block.0.layer.0.SelfAttention.q.kernel``) and shape. Parameters are read and
    placed on the devices one by one.
    """
    weights.refuse_float16(dtype, "T5")
    config, tensors = open_t5(source, subfolder=subfolder)
    params = weights.from_tensors(
        tensors, t5_shapes(config), source=source, dtype=dtype, sharding=sharding
    )
    return params, config


def open_t5(source: str | Path, *, subfolder: str = "") -> tuple[T5Config, dict[str, StoredTensor]]:
    """Returns the config and the unread tensors that `load_t5` reads, under their usual names."""
    value, tensors = weights.load_directory(source, subfolder=subfolder, weights=(WEIGHTS,))
    with naming(source, subfolder=subfolder):
        config = T5Config.from_json(value)
    if EMBEDDING not in tensors and COPY in tensors:
        tensors[EMBEDDING] = tensors.pop(COPY)

    def ignore(name: str) -> bool:
        return name == COPY or name.startswith(NOT_OF_ENCODER)

    return config, {name: tensor for name, tensor in tensors.items() if not ignore(name)}


def _norm(width: int) -> Tree:
    return {"scale": (width,)}


def _rms_norm(params: Tree, config: T5Config, x: Float[Array, "b l e"]) -> Array:
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(
        jnp.square(wide).mean(-1, keepdims=True) + config.layer_norm_epsilon
    )
    return (wide * params["scale"].astype(jnp.float32)[None, None]).astype(x.dtype)


def _attention(
    params: Tree,
    config: T5Config,
    x: Float[Array, "b l e"],
    *,
    bias: Float[Array, "1 k l l"],
    keys: Bool[Array, "b 1 1 l"],
) -> Array:
    heads = (x @ params[name]["kernel"] for name in ("q", "k", "v"))
    q, k, v = (rearrange(y, "b l (k f) -> b l k f", k=config.num_heads) for y in heads)
    h = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=keys, scale=1.0)
    return rearrange(h, "b l k f -> b l (k f)") @ params["o"]["kernel"]


def _mlp(params: Tree, config: T5Config, x: Float[Array, "b l e"]) -> Array:
    activation = ACTIVATIONS[config.feed_forward_proj]
    if config.gated:
        h = activation(x @ params["wi_0"]["kernel"]) * (x @ params["wi_1"]["kernel"])
    else:
        h = activation(x @ params["wi"]["kernel"])
    return h @ params["wo"]["kernel"]
