"""One softmax, three programs: XLA's own, cuDNN's, and a Pallas kernel for TPUs.

``softmax(q k^T / sqrt(f)) v`` over the keys that are visible. XLA writes the scores to memory;
cuDNN (NVIDIA GPUs from compute capability 8.0 on, half precision) and Pallas (TPUs from v4 on)
keep them on the chip (Dao et al. 2022, arXiv:2205.14135). `fastest` says which one a device is made
for, and `works` tries it there, at the shapes of the run, against XLA's.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

BATCH_AXES = ("data", "fsdp")
"""Axes of the mesh over which a batch is cut."""
HEAD_AXIS = "tensor"
"""The axis of the mesh over which heads are cut."""
LANES = 128
"""Rows and columns of a Pallas block are multiples of this."""
BLOCK = 512
"""The largest side of a Pallas block."""
TOLERANCE = 0.05
"""How far a program may be from XLA's, relative to the largest value, in half precision."""


def attend(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
    implementation: str = "xla",
) -> Float[Array, "b k n f"]:
    """Attention by the program of that name; hidden keys get weight zero."""
    return PROGRAMS[implementation](query, key, value, visible)


@jax.custom_vjp
def _xla(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
) -> Float[Array, "b k n f"]:
    """Softmax in fp32; the sum of the weights divides the output, which is smaller than they.

    Of all scores the backward pass keeps the weights alone, in the precision of the values::

        dS = W * (dO v^T - sum(dO * O)) / sum(W),   dq = dS k / sqrt(f),   dk = dS^T q / sqrt(f)
    """
    return _weigh(query, key, value, visible)[0]


def _weigh(
    query: Array, key: Array, value: Array, visible: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The output, and what its gradient needs."""
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = _product("bknf,bkmf->bknm", scaled, key)
    hidden = jnp.where(visible, 0.0, jnp.finfo(jnp.float32).min).astype(jnp.float32)
    scores = scores + hidden[:, None, None, :]
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(value.dtype)
    output = (_product("bknm,bkmf->bknf", weights, value) / total).astype(value.dtype)
    return output, (scaled, key, value, weights, total, output)


def _weigh_backward(kept: tuple[Array, ...], change: Array) -> tuple[Array | None, ...]:
    """Gradients of query, key and value; `change` is the output's."""
    scaled, key, value, weights, total, output = kept
    wide = change.astype(jnp.float32) / total
    mean = jnp.sum(wide * output.astype(jnp.float32), axis=-1, keepdims=True)
    narrow = wide.astype(value.dtype)
    scores = weights.astype(jnp.float32) * (_product("bknf,bkmf->bknm", narrow, value) - mean)
    scores = scores.astype(value.dtype)
    d_value = _product("bknm,bknf->bkmf", weights, narrow).astype(value.dtype)
    d_scaled = _product("bknm,bkmf->bknf", scores, key)
    d_query = (d_scaled * scaled.shape[-1] ** -0.5).astype(scaled.dtype)
    return d_query, _product("bknm,bknf->bkmf", scores, scaled).astype(key.dtype), d_value, None


def _product(pattern: str, a: Array, b: Array) -> Array:
    return jnp.einsum(pattern, a, b, preferred_element_type=jnp.float32)


_xla.defvjp(_weigh, _weigh_backward)


def _lengthened(
    query: Array, key: Array, value: Array, visible: Array, multiple: int
) -> tuple[Array, Array, Array, Array]:
    """All with as many rows as the next multiple; the added keys are hidden."""

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
) -> Float[Array, "b k n f"]:
    """NVIDIA's fused kernel; in training it wants even lengths."""
    length = query.shape[2]
    query, key, value, visible = _lengthened(query, key, value, visible, 2)
    batch, _, rows, _ = query.shape
    mask = jnp.broadcast_to(visible[:, None, None, :], (batch, 1, rows, visible.shape[1]))
    turned = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    output = jax.nn.dot_product_attention(*turned, mask=mask, implementation="cudnn")
    return jnp.swapaxes(output, 1, 2)[:, :, :length]


def _block(length: int) -> int:
    """The largest block that divides this many rows."""
    return max(side for side in range(LANES, BLOCK + 1, LANES) if length % side == 0)


def _flash(query: Array, key: Array, value: Array, visible: Array) -> Array:
    """The TPU kernel, on one device; tokens of one segment see each other."""
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
    return output[:, :, :length]


def _pallas(
    query: Float[Array, "b k n f"],
    key: Float[Array, "b k m f"],
    value: Float[Array, "b k m f"],
    visible: Bool[Array, "b m"],
) -> Float[Array, "b k n f"]:
    """The TPU kernel on each device's part: XLA cannot cut a kernel by itself.

    The mesh is the one that is set around the step (`jax.set_mesh`); without one, one device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _flash(query, key, value, visible)
    batch = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    head = HEAD_AXIS if HEAD_AXIS in mesh.axis_names else None
    cut, rows = PartitionSpec(batch, head), PartitionSpec(batch)
    mapped = jax.shard_map(
        _flash, mesh=mesh, in_specs=(cut, cut, cut, rows), out_specs=cut, check_vma=False
    )
    return mapped(query, key, value, visible)


PROGRAMS: dict[str, Callable[..., Array]] = {"xla": _xla, "cudnn": _cudnn, "pallas": _pallas}
"""Ways to compute attention, by name."""


def fastest(platform: str, kind: str, dtype: str, *, capability: float = 0.0) -> str:
    """The program made for a device: its JAX platform and kind, and the compute dtype.

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
    """Empty if the program and its gradient agree with XLA's on this process's first device.

    Otherwise why not. A kernel that a device, driver or library version cannot run shows here,
    before training.
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
        found = both(implementation)
        jax.block_until_ready(found)
    except Exception as error:  # whatever a kernel's compiler raises, XLA's program remains
        return " ".join(str(error).split())[:200] or type(error).__name__
    for ours, reference in zip(found, both("xla"), strict=True):
        reference = reference.astype(jnp.float32)
        far = jnp.max(jnp.abs(ours.astype(jnp.float32) - reference)) / jnp.max(jnp.abs(reference))
        if not far < TOLERANCE:
            return f"it differs from XLA's by {float(far):.2g} of the largest value"
    return ""


__all__ = ["PROGRAMS", "attend", "fastest", "works"]
