"""Estimates the memory of a training step in a second, without a compiler.

::

    needs = state + encoders + gradients + stored activations of all blocks + work of one block

Parts that are arrays of the run are exact. The activations are those that JAX's gradient of the
network stores for one sample, which tracing it with shapes reveals. The gradients of norms, gates
and products are written out and store little, and compilers keep more: wider copies, and results
that are not worth computing again. `SHARES` has the multiples that the vendors' compilers showed,
rounded up, and `MARGIN` is what the estimate may still be too low by. A change of what a gradient
stores needs other multiples, which a test notices. ``python benchmarks/auto_choices.py`` compares
the estimate with compiled programs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pinxit.arrays import Autoencoder, Conditioning
from pinxit.devices.mesh import batch_parts, frozen_shardings, process_count
from pinxit.models.transformer import TransformerConfig, abstract, apply
from pinxit.train.abstract_program import device_bytes, placed_abstract_state
from pinxit.train.build import Parts, text_columns_for
from pinxit.train.input.encode_chunk import stream_chunk
from pinxit.train.settings import TrainConfig

MARGIN = 0.06
"""Share of a device's memory that an estimate leaves free, since it may be too low."""
ENCODER_WORK = 3.0
"""Size of an autoencoder's activations for an image, in multiples of its largest one: 2.9 on a V100
in float32, 1.5 in bfloat16."""


@dataclass(frozen=True)
class Shares:
    """Multiples of what is stored that a compiler keeps, by how the blocks are compiled."""

    unrolled: float
    """Multiple of the stored activations, attention's weights aside, if blocks are unrolled and
    nothing is recomputed."""
    looped: float
    """The same if the blocks run in a loop, whose stacks the compiler does not shorten, or if they
    are recomputed."""
    work: float
    """Work of an unrolled block's backward pass, as a multiple of the block's own activations."""
    looped_work: float
    """The same for a block in a loop."""
    scores: float = 1.0
    """Memory of attention's weights, as a multiple of what is stored of them: wider copies."""


SHARES = {
    "tpu": Shares(unrolled=1.1, looped=1.1, work=0.8, looped_work=2.3),
    "gpu": Shares(unrolled=1.6, looped=1.1, work=1.1, looped_work=2.1),
    "gpu without fused attention": Shares(
        unrolled=1.5, looped=1.1, work=1.1, looped_work=2.1, scores=3.0
    ),
    "cpu": Shares(unrolled=1.6, looped=1.1, work=1.1, looped_work=2.3),
}
"""The multiples by platform. Other platforms have those of the CPU, which are the largest."""


@dataclass(frozen=True)
class StoredActivations:
    """The bytes that the gradient of the network stores for each sample."""

    scores: int
    """Weights of attention in one block; 0 if rematerialisation computes them again, or for kernels
    that keep them on the chip."""
    block: int
    """Bytes of all other activations in one block."""
    outside: int
    """Activations before and after the blocks."""


@cache
def stored_activations(
    model: TransformerConfig, height: int, width: int, length: int
) -> StoredActivations:
    """Traces the gradient of the network for latents of this size and captions of `length` tokens.

    The tracing uses XLA's attention in any case, because other kernels need their device.
    """
    plain = dataclasses.replace(model, attention="xla", scan_blocks=True, scan_unroll=1)
    one, two = (_residuals(plain, rows, height, width, length) for rows in (1, 2))
    queries = height * width // model.patch_size**2
    scores = block = outside = 0
    for small, large in zip(one, two, strict=True):
        grown = _size(large) - _size(small)
        if not grown:
            continue  # parameters
        if large.shape[0] != model.depth:
            outside += grown
        elif large.shape[-2:] == (queries, queries + length):
            scores += grown // model.depth
        else:
            block += grown // model.depth
    return StoredActivations(scores if model.attention == "xla" else 0, block, outside)


def _residuals(
    model: TransformerConfig, rows: int, height: int, width: int, length: int
) -> list[jax.ShapeDtypeStruct]:
    """Returns the shapes of the arrays that the backward pass of the network reads."""

    def gradient(params: Any, x_t: Any, t: Any, tokens: Any, mask: Any) -> Any:
        conditioning = Conditioning(tokens, mask)
        return jax.vjp(lambda params: apply(model, params, x_t, t, conditioning), params)[1]

    shape = jax.ShapeDtypeStruct
    residuals = jax.eval_shape(
        gradient,
        abstract(model)[1],
        shape((rows, height, width, model.in_channels), jnp.float32),
        shape((rows,), jnp.float32),
        shape((rows, length, model.context_dim), jnp.float32),
        shape((rows, length), jnp.bool_),
    )
    return jax.tree.leaves(residuals)


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


@dataclass(frozen=True)
class StepEstimate:
    """The estimate for one run, whose remat, scan_blocks and pieces may be varied."""

    parts: Parts
    """The network, the mesh and the encoders, which may have shapes for parameters."""
    params: int
    """Bytes of the parameters on one device, as for all fields below."""
    state: int
    """Bytes of parameters, optimiser and averages."""

    def by_part(self, config: TrainConfig, model: TransformerConfig) -> dict[str, int]:
        """Returns the memory of the step on one device, in bytes by part."""
        rows = math.ceil(config.batch_size / (config.pieces * batch_parts(self.parts.mesh)))
        whole = dataclasses.replace(model, remat="none")
        stored, unsaved = (_stored(config, self.parts, one) for one in (model, whole))
        return {
            "state": self.state,
            "encoders": encoder_bytes(config, self.parts),
            "gradients": self.params * (1 if config.pieces == 1 else 2),
            **_activations(model, self.parts.mesh, stored, unsaved, rows),
        }

    def total(self, config: TrainConfig, model: TransformerConfig) -> int:
        """Returns the peak memory of the step on one device, in bytes."""
        return sum(self.by_part(config, model).values())


def step_estimate(config: TrainConfig, parts: Parts) -> StepEstimate:
    """Prepares the estimate for a run with resolved settings."""
    state = placed_abstract_state(config, parts)
    params = device_bytes(state.params)
    rest = device_bytes(state.opt_state) + device_bytes(state.ema)
    return StepEstimate(parts, params, params + rest)


def _stored(config: TrainConfig, parts: Parts, model: TransformerConfig) -> StoredActivations:
    side = config.image_size // parts.autoencoder.stats.downsample
    return stored_activations(model, side, side, parts.text_encoder.max_tokens)


def _activations(
    model: TransformerConfig,
    mesh: Mesh,
    stored: StoredActivations,
    whole: StoredActivations,
    rows: int,
) -> dict[str, int]:
    """Returns the activations of `rows` samples: `stored` under the policy, `whole` without one."""
    platform = mesh.devices.flat[0].platform
    if platform in ("gpu", "cuda", "rocm"):
        platform = "gpu" if model.attention == "cudnn" else "gpu without fused attention"
    shares = SHARES.get(platform, SHARES["cpu"])
    share = shares.unrolled if model.remat == "none" and not model.scan_blocks else shares.looped
    work = shares.looped_work if model.scan_blocks else shares.work
    heads = mesh.shape["tensor"]
    each = stored.scores * shares.scores / heads + stored.block * share
    return {
        "activations": int(rows * (model.depth * each + stored.outside)),
        "work": int(rows * (whole.scores * shares.scores / heads + whole.block * work)),
    }


def encoder_bytes(config: TrainConfig, parts: Parts) -> int:
    """Returns the bytes on a device of the frozen encoders, and of the autoencoder's activations if
    it runs in the step or, for streams, beside it."""
    text = {str(i): part.params for i, part in enumerate(text_columns_for(config, parts).parts)}
    frozen = _frozen_bytes(text, parts.mesh) + _frozen_bytes(parts.autoencoder.params, parts.mesh)
    rows = images_at_once(config, parts.mesh)
    return frozen + rows * encoder_work(parts.autoencoder, config.image_size) if rows else frozen


def images_at_once(config: TrainConfig, mesh: Mesh) -> int:
    """Returns how many images each device encodes at a time while it trains."""
    if config.encode_in_step:
        return math.ceil((config.encoder_chunk or config.batch_size // config.pieces) / mesh.size)
    if not config.streamed or not config.encodes_ahead:
        return 0
    devices, processes = mesh.size, process_count(mesh)
    images = stream_chunk(
        config.image_size, config.batch_size, devices=devices, processes=processes
    )
    return images // devices


def encoder_work(autoencoder: Autoencoder, image_size: int) -> int:
    """Returns the estimated bytes of the activations with which an image is encoded."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                          autoencoder.params)  # fmt: skip
    traced = jax.make_jaxpr(autoencoder.encode)(shapes, image)
    return int(ENCODER_WORK * _largest(traced.jaxpr))


def _largest(jaxpr: Any) -> int:
    """Returns the size of the largest result in a program, in bytes."""
    sizes = [_size(value.aval) for equation in jaxpr.eqns for value in equation.outvars]
    inner = [value for equation in jaxpr.eqns for value in equation.params.values()]
    sizes += [_largest(getattr(one, "jaxpr", one)) for one in inner if hasattr(one, "eqns")
              or hasattr(one, "jaxpr")]  # fmt: skip
    return max(sizes, default=0)


def _frozen_bytes(tree: Any, mesh: Mesh) -> int:
    """Returns the bytes of frozen weights on one device."""
    shardings = frozen_shardings(tree, mesh)
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf, sharding in leaves
    )
