"""Two text encoders in one: tokens along the sequence, features in blocks.

With two encoders of widths a and b, the tokens of both stand one after the other and the features
of each in a block of their own, zero elsewhere: a token x of the first is ``[x, 0]`` and a token y
of the second ``[0, y]``, of width a + b. The model's one projection of its text, ``W z + v``, is
then ``W_a x + v`` for the first and ``W_b y + v`` for the second, where ``W = [W_a W_b]``: exactly
a projection for each, but for the bias, which they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from pinxit.arrays import ArrayLike, Conditioning, TextEncoder


class JointTextEncoder:
    """Two encoders in one, as `arrays.TextEncoder` (see the module)."""

    def __init__(self, first: TextEncoder, second: TextEncoder) -> None:
        self.parts = (first, second)
        self.kind = f"{first.kind}+{second.kind}"
        self.cacheable = first.cacheable or second.cacheable
        self.params = (first.params, second.params)
        self.max_tokens = first.max_tokens + second.max_tokens
        self.width = first.width + second.width
        self._jitted = jax.jit(self.apply)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns the first encoder's row, then the second's."""
        return np.concatenate([part.tokenize(captions) for part in self.parts], axis=1)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Tells which captions lose their tail in either encoder."""
        first, second = (part.truncated(captions) for part in self.parts)
        return first | second

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns both encoders' outputs, joined. Pure and jittable.

        Rows may be cut at the end, where the second encoder's padding is; the first encoder's
        part is always whole.
        """
        rows = self._split(token_ids)
        triples = zip(self.parts, params, rows, strict=True)
        return join(*(part.apply(own, ids) for part, own, ids in triples))

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        return self._jitted(self.params, self.tokenize(captions))

    def _split(self, token_ids: Int[ArrayLike, "b l"]) -> tuple[ArrayLike, ArrayLike]:
        cut, length = self.parts[0].max_tokens, token_ids.shape[1]
        if not cut < length <= self.max_tokens:
            raise ValueError(
                f"{length} tokens; this encoder reads {cut + 1} to {self.max_tokens}, the first "
                f"{cut} of them with {self.parts[0].kind}"
            )
        return token_ids[:, :cut], token_ids[:, cut:]


def join(first: Conditioning, second: Conditioning) -> Conditioning:
    """Joins the outputs of two encoders; `pooled` is the first's, if it has one."""
    before, after = first.tokens.shape[-1], second.tokens.shape[-1]
    left = jnp.pad(first.tokens, ((0, 0), (0, 0), (0, after)))
    right = jnp.pad(second.tokens, ((0, 0), (0, 0), (before, 0)))
    return Conditioning(
        tokens=jnp.concatenate([left, right], axis=1),
        mask=jnp.concatenate([first.mask, second.mask], axis=1),
        pooled=second.pooled if first.pooled is None else first.pooled,
    )
