"""The layers: linear maps, patches, embeddings of scalars, modulation and the gated MLP.

The modules of a block take ``stack``, a leading shape of their parameters: ``()`` for one layer, or
``(depth,)`` for all blocks of a transformer at once. The forward pass always sees one layer, which
is a slice of the stack. Parameters are fp32, and each call casts them to the dtype of its input.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from pinxit.models.gating import gated_product
from pinxit.models.norms import rms_norm
from pinxit.models.products import product

TIME_FEATURES = 256
"""Width of the sinusoidal time embedding."""


class Linear(nnx.Module):
    """``x @ kernel + bias``, with a named initialiser; ``zeros`` makes the initial output zero."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
        stack: tuple[int, ...] = (),
        bias: bool = True,
        init: str = "xavier",
    ):
        initialiser = {
            "xavier": jax.nn.initializers.variance_scaling(
                1.0, "fan_avg", "uniform", batch_axis=tuple(range(len(stack)))
            ),
            "normal": jax.nn.initializers.normal(0.02),
            "zeros": jax.nn.initializers.zeros,
        }[init]
        self.kernel = nnx.Param(initialiser(rngs.params(), (*stack, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, outputs), jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        y = product(x, jnp.asarray(self.kernel[...]))
        if self.bias is None:
            return y
        return y + jnp.expand_dims(self.bias[...].astype(x.dtype), tuple(range(x.ndim - 1)))


class RMSNorm(nnx.Module):
    """``x / rms(x) * scale`` over the last axis, with statistics in fp32."""

    def __init__(self, width: int, *, stack: tuple[int, ...] = ()):
        self.scale = nnx.Param(jnp.ones((*stack, width), jnp.float32))

    def __call__(self, x: Float[Array, "*batch f"]) -> Float[Array, "*batch f"]:
        return rms_norm(x, jnp.asarray(self.scale[...]))


def patchify(x: Float[Array, "b h w c"], patch: int) -> Float[Array, "b n _"]:
    """Splits `x` into tokens of ``patch x patch`` cells, row by row.

    The features of a token are ordered by channel, then row, then column.
    """
    return rearrange(x, "b (h p) (w q) c -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Array, "b n _"], patch: int, height: int, width: int
) -> Float[Array, "b h w c"]:
    """Inverts `patchify` for a grid of ``height x width`` cells."""
    rows, columns = height // patch, width // patch
    return rearrange(
        tokens, "b (h w) (c p q) -> b (h p) (w q) c", h=rows, w=columns, p=patch, q=patch
    )


def sinusoids(
    x: Float[Array, " b"], features: int, *, factor: float, max_period: int
) -> Float[Array, "b {features}"]:
    """Returns the cosines, then the sines, of ``factor * x`` times the frequencies.

    The frequencies fall geometrically from 1 to about ``1 / max_period``.
    """
    half = features // 2
    # Angles are as large as `factor`, so the last bit matters: round as diffusers does.
    exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32)
    frequencies = np.exp((exponents / np.float32(half)).astype(np.float64)).astype(np.float32)
    angles = (x.astype(jnp.float32)[:, None] * frequencies[None, :]) * factor
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Embedder(nnx.Module):
    """Two linear layers with a SiLU in between."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.first = Linear(inputs, width, rngs=rngs, init="normal")
        self.second = Linear(width, width, rngs=rngs, init="normal")

    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b d"]:
        return self.second(jax.nn.silu(self.first(x)))


class BlockModulation(nnx.Module):
    """Adds a block's own table row and low-rank map of the condition to the shared modulation.

    ``m_i = shared + table_i + (condition @ a_i) @ b_i``. This is linear in the condition, so it can
    be merged with the shared map into one matrix per block. ``b`` starts at zero and ``a`` does
    not, so both can learn.
    """

    def __init__(self, width: int, rank: int, *, rngs: nnx.Rngs, stack: tuple[int, ...] = ()):
        self.table = nnx.Param(jnp.zeros((*stack, 6 * width), jnp.float32))
        self.a = Linear(width, rank, rngs=rngs, stack=stack, bias=False) if rank else None
        self.b = (
            Linear(rank, 6 * width, rngs=rngs, stack=stack, bias=False, init="zeros")
            if rank
            else None
        )

    def __call__(
        self, condition: Float[Array, "b d"], shared: Float[Array, "b m"]
    ) -> Float[Array, "b m"]:
        modulation = shared + self.table[...].astype(shared.dtype)[None, :]
        if self.a is None or self.b is None:
            return modulation
        return modulation + self.b(self.a(condition))


class GatedMLP(nnx.Module):
    """``down(gelu(gate(x)) * up(x))``, without biases."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs, stack: tuple[int, ...] = ()):
        self.gate = Linear(width, hidden, rngs=rngs, stack=stack, bias=False)
        self.up = Linear(width, hidden, rngs=rngs, stack=stack, bias=False)
        self.down = Linear(hidden, width, rngs=rngs, stack=stack, bias=False)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return gated_product(self.gate(x), self.up(x), jnp.asarray(self.down.kernel[...]))
