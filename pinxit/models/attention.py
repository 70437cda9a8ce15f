"""Image tokens attend to text and image: ``softmax(q k^T / sqrt(f)) v`` with ``k = [text, image]``.

Queries come from the image alone, so the text tokens stay the same in all blocks. Queries and keys
are RMS-normalised per head, with a separate norm for text keys. Image queries and keys are rotated
by their position in the grid (RoPE, Su et al. 2021, arXiv:2104.09864): some pairs of a head's
features turn with the row and the rest with the column, at ``theta ** (-2 i / width)`` radians per
token. A head holds the first members of all pairs, followed by the second members. Attention scores
do not depend on this order, and halves are cheaper to slice than interleaved pairs.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from pinxit.models.attention_kernels import attend
from pinxit.models.layers import Linear, RMSNorm
from pinxit.models.transposing import heads_first

Rotation = tuple[Float[Array, "n f"], Float[Array, "n f"]]
"""Cosines and signed sines for every image token, with each pair's value repeated twice."""


def head_axes(head_dim: int) -> tuple[int, int]:
    """Returns the number of head features that turn with the row and with the column, both even."""
    rows = 2 * (head_dim // 4)
    return rows, head_dim - rows


def rope(rows: int, columns: int, head_dim: int, theta: float) -> Rotation:
    """Computes the rotation of each token of a ``rows x columns`` grid in double precision."""
    row_of, column_of = np.divmod(np.arange(rows * columns, dtype=np.float64), columns)
    angles = []
    for position, width in zip((row_of, column_of), head_axes(head_dim), strict=True):
        omega = 1.0 / theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
        angles.append(position[:, None] * omega[None, :])
    angle = np.concatenate(angles, axis=-1)
    cosine, sine = np.cos(angle), np.sin(angle)
    return (
        jnp.asarray(np.concatenate([cosine, cosine], axis=-1), jnp.float32),
        jnp.asarray(np.concatenate([-sine, sine], axis=-1), jnp.float32),
    )


def rotate(x: Float[Array, "b n k f"], rotation: Rotation) -> Float[Array, "b n k f"]:
    """Rotates the feature pairs of `x`, in fp32."""
    cosine, sine = rotation
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    swapped = jnp.concatenate([second, first], axis=-1)
    return (wide * cosine[None, :, None] + swapped * sine[None, :, None]).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention of image tokens over text and image tokens, without biases."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        stack: tuple[int, ...] = (),
        program: str = "xla",
    ):
        self.heads = heads
        self.program = program
        head_dim = width // heads
        self.query = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.key = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.value = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.text_key = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.text_value = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.out = Linear(width, width, rngs=rngs, stack=stack, bias=False)
        self.query_norm = RMSNorm(head_dim, stack=stack)
        self.key_norm = RMSNorm(head_dim, stack=stack)
        self.text_key_norm = RMSNorm(head_dim, stack=stack)

    def _split(self, x: Float[Array, "b n d"]) -> Float[Array, "b n k f"]:
        return rearrange(x, "b n (k f) -> b n k f", k=self.heads)

    def __call__(
        self,
        image: Float[Array, "b n d"],
        text: Float[Array, "b l d"],
        mask: Bool[Array, "b l"],
        rotation: Rotation,
    ) -> Float[Array, "b n d"]:
        query = rotate(self.query_norm(self._split(self.query(image))), rotation)
        key = rotate(self.key_norm(self._split(self.key(image))), rotation)
        text_key = self.text_key_norm(self._split(self.text_key(text)))
        text_value = self._split(self.text_value(text))
        keys = jnp.concatenate([text_key, key], axis=1)
        values = jnp.concatenate([text_value, self._split(self.value(image))], axis=1)
        visible = jnp.pad(mask, ((0, 0), (0, image.shape[1])), constant_values=True)
        query, keys, values = map(heads_first, (query, keys, values))
        return self.out(attend(query, keys, values, visible, self.program))
