"""Three implementations of attention: XLA's, cuDNN's, and a Pallas kernel for TPUs.

All compute ``softmax(q k^T / sqrt(f)) v`` over the visible keys, and return the features of all
heads side by side, as the next layer reads them. XLA writes the scores to memory.
cuDNN (NVIDIA GPUs from compute capability 8.0 on, half precision) and Pallas (TPUs from v4 on) keep
them on the chip (Dao et al. 2022, arXiv:2205.14135). `fastest` chooses the implementation for a
device, and `works` compares it with XLA's there, at the shapes of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from pinxit.models.products import turned_product
from pinxit.models.recomputing import computed_again
from pinxit.models.row_reductions import row_max, row_sum
from pinxit.models.transposing import heads_first

BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which a batch is sharded."""
HEAD_AXIS = "tensor"
"""The mesh axis over which heads are sharded."""
LN_2 = math.log(2)
"""The scores count in powers of two, since CPUs compute those faster than powers of e."""
STORED_SCORES = 2**20
"""Scores of one head and sample from which the backward pass computes the weights again."""
LANES = 128
"""Rows and columns of a Pallas block are multiples of this."""
BLOCK = 512
"""The largest side of a Pallas block."""
TOLERANCE = 0.05
"""Largest allowed deviation from XLA's result in half precision, relative to its largest value."""


def attend(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
    implementation: str = "xla",
) -> Float[Array, "b n d"]:
    """Computes attention with the named implementation. Hidden keys get weight zero."""
    return PROGRAMS[implementation](query, key, value, visible)


@jax.custom_vjp
def _xla(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
) -> Float[Array, "b n d"]:
    """Computes the softmax in fp32, and divides the output rather than the weights by their sum.

    The output is the smaller array. The backward pass stores the weights of all scores, in the
    precision of the values, and the output, which is the array that the next layer stores too::

        dS = W * (dO v^T - sum(dO * O)) / sum(W),   dq = dS k / sqrt(f),   dk = dS^T q / sqrt(f)

    From `STORED_SCORES` on, it computes the weights again on a CPU: they would be most of what is
    stored, and the product takes a few percent of a step's time. Elsewhere, rematerialisation
    decides what is stored, and scores in fp32 would need more memory than the weights.
    """
    return _weigh(query, key, value, visible)[0]


def _weigh(query: Array, key: Array, value: Array, visible: Array) -> tuple[Array, tuple[Any, ...]]:
    """Returns the output and the arrays that the backward pass needs."""
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5 / LN_2, query.dtype)
    hidden = jnp.where(visible, 0.0, jnp.finfo(jnp.float32).min).astype(jnp.float32)
    scores = _scores(scaled, key, hidden)
    largest = row_max(scores)
    weights = jnp.exp2(scores - largest)
    total = row_sum(weights)
    weights = weights.astype(value.dtype)
    output = _beside((_product("bknm,bkmf->bknf", weights, value) / total).astype(value.dtype))
    return output, (scaled, key, value, total, output, weights, (hidden, largest))


def _scores(scaled: Array, key: Array, hidden: Array) -> Float[Array, "b k n m"]:
    """Returns the scores in powers of two. Those of hidden keys are the smallest number."""
    return _product("bknf,bkmf->bknm", scaled, key) + hidden[:, None, None, :]


def _stored_weights(
    weights: Array, scaled: Array, key: Array, again: tuple[Array, Array], change: Array
) -> Float[Array, "b k n m"]:
    """Returns the weights of the forward pass. If they are many, a CPU computes them again.

    XLA does not store what a platform's program does not read.
    """
    if scaled.shape[2] * key.shape[2] < STORED_SCORES:
        return weights

    def computed(weights: Array, scaled: Array, key: Array, hidden: Array, largest: Array) -> Array:
        scores = _scores(computed_again(scaled, change), key, hidden)
        return jnp.exp2(scores - largest).astype(weights.dtype)

    def stored(weights: Array, *_: Array) -> Array:
        return weights

    return jax.lax.platform_dependent(weights, scaled, key, *again, cpu=computed, default=stored)


def _weigh_backward(saved: tuple[Any, ...], change: Array) -> tuple[Array | None, ...]:
    """Returns the gradients of query, key and value; `change` is the gradient of the output."""
    scaled, key, value, total, output, weights, again = saved
    weights = _stored_weights(weights, scaled, key, again, change)
    heads = value.shape[1]
    wide = _by_head(change, heads).astype(jnp.float32) / total
    mean = row_sum(wide * _by_head(output, heads).astype(jnp.float32))
    narrow = wide.astype(value.dtype)
    scores = weights.astype(jnp.float32) * (_product("bknf,bkmf->bknm", narrow, value) - mean)
    scores = scores.astype(value.dtype)
    d_value = turned_product(weights, narrow).astype(value.dtype)
    d_scaled = _product("bknm,bkmf->bknf", scores, key)
    d_query = (d_scaled * scaled.shape[-1] ** -0.5).astype(scaled.dtype)
    d_key = turned_product(scores, scaled) * LN_2
    return d_query, d_key.astype(key.dtype), d_value, None


def _beside(output: Float[Array, "b k n f"]) -> Float[Array, "b n d"]:
    """Puts the features of all heads side by side."""
    return rearrange(output, "b k n f -> b n (k f)")


def _by_head(output: Float[Array, "b n d"], heads: int) -> Float[Array, "b k n f"]:
    """Takes the heads apart again."""
    return heads_first(rearrange(output, "b n (k f) -> b n k f", k=heads))


def _product(pattern: str, a: Array, b: Array) -> Array:
    return jnp.einsum(pattern, a, b, preferred_element_type=jnp.float32)


_xla.defvjp(_weigh, _weigh_backward)


def _lengthened(
    query: Array, key: Array, value: Array, visible: Array, multiple: int
) -> tuple[Array, Array, Array, Array]:
    """Pads all arrays to a multiple of `multiple` rows, and hides the added keys."""

    def rows(x: Array, axis: int) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, -x.shape[axis] % multiple)
        return jnp.pad(x, widths)

    return rows(query, 2), rows(key, 2), rows(value, 2), rows(visible, 1)


def _cudnn(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
) -> Float[Array, "b n d"]:
    """Computes attention with NVIDIA's fused kernel, padded: it needs even lengths in training."""
    length = query.shape[2]
    query, key, value, visible = _lengthened(query, key, value, visible, 2)
    batch, _, rows, _ = query.shape
    mask = jnp.broadcast_to(visible[:, None, None, :], (batch, 1, rows, visible.shape[1]))
    transposed = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    output = jax.nn.dot_product_attention(*transposed, mask=mask, implementation="cudnn")
    return rearrange(output[:, :length], "b n k f -> b n (k f)")


def _block(length: int) -> int:
    """Returns the largest block side that divides `length`."""
    return max(side for side in range(LANES, BLOCK + 1, LANES) if length % side == 0)


def _flash(query: Array, key: Array, value: Array, visible: Array) -> Array:
    """Runs the TPU kernel on one device. Hidden keys are in another segment than the queries."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    length, width = query.shape[2:]
    query, key, value, visible = _lengthened(query, key, value, visible, LANES)
    q, k = _block(query.shape[2]), _block(key.shape[2])
    blocks = flash.BlockSizes(
        block_b=1,
        block_q=q, block_k_major=k, block_k=k,
        block_q_major_dkv=q, block_k_major_dkv=k, block_k_dkv=k, block_q_dkv=q,
        block_k_major_dq=k, block_k_dq=k, block_q_dq=q,
    )  # fmt: skip
    segments = flash.SegmentIds(
        q=jnp.ones((query.shape[0], query.shape[2]), jnp.int32), kv=visible.astype(jnp.int32)
    )
    output = flash.flash_attention(
        query, key, value, segment_ids=segments, sm_scale=width**-0.5, block_sizes=blocks
    )
    return _beside(output[:, :, :length])


def _pallas(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
) -> Float[Array, "b n d"]:
    """Runs the TPU kernel on each device's part, because XLA cannot shard a kernel by itself.

    The mesh is the one that is set around the step (`jax.set_mesh`). Without a mesh, the kernel
    runs on one device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _flash(query, key, value, visible)
    batch = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    head = HEAD_AXIS if HEAD_AXIS in mesh.axis_names else None
    cut, rows = PartitionSpec(batch, head), PartitionSpec(batch)
    features = PartitionSpec(batch, None, head)
    mapped = jax.shard_map(
        _flash, mesh=mesh, in_specs=(cut, cut, cut, rows), out_specs=features, check_vma=False
    )
    return mapped(query, key, value, visible)


PROGRAMS: dict[str, Callable[..., Array]] = {"xla": _xla, "cudnn": _cudnn, "pallas": _pallas}
"""Implementations of attention by name."""


def fastest(platform: str, kind: str, dtype: str, *, capability: float = 0.0) -> str:
    """Returns the fastest implementation for a JAX platform, device kind and compute dtype.

    `capability` is a GPU's compute capability, such as 8.0. TPU v2 and v3 cannot run the Pallas
    kernel.
    """
    if platform in ("gpu", "cuda") and capability >= 8.0 and dtype != "float32":
        return "cudnn"
    if platform == "tpu" and not any(old in kind for old in ("v2", "v3")):
        return "pallas"
    return "xla"


def works(
    implementation: str, *, heads: int, head_dim: int, queries: int, keys: int, dtype: str
) -> str:
    """Compares an implementation and its gradient with XLA's on this process's first device.

    Returns an empty string if they agree, else the reason. A kernel that the device, the driver or
    a library version cannot run fails here, before training.
    """
    parts = jax.random.split(jax.random.key(0), 3)
    shapes = ((1, heads, queries, head_dim), *(((1, heads, keys, head_dim),) * 2))
    arrays = [
        jax.random.normal(part, shape, jnp.dtype(dtype))
        for part, shape in zip(parts, shapes, strict=True)
    ]
    visible = jnp.arange(keys)[None, :] < keys - keys // 8

    def both(implementation: str) -> tuple[Array, ...]:
        def energy(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
            output = attend(q, k, v, visible, implementation).astype(jnp.float32)
            return jnp.sum(jnp.square(output)), output

        gradient = jax.jit(jax.grad(energy, argnums=(0, 1, 2), has_aux=True))
        gradients, output = gradient(*arrays)
        return (output, *gradients)

    try:
        results = both(implementation)
        jax.block_until_ready(results)
    except Exception as error:  # a kernel's compiler may raise anything
        return " ".join(str(error).split())[:200] or type(error).__name__
    for ours, reference in zip(results, both("xla"), strict=True):
        reference = reference.astype(jnp.float32)
        error = jnp.max(jnp.abs(ours.astype(jnp.float32) - reference)) / jnp.max(jnp.abs(reference))
        if not error < TOLERANCE:
            return f"its result differs from XLA's by {float(error):.2g} of the largest value"
    return ""


__all__ = ["PROGRAMS", "attend", "fastest", "works"]
