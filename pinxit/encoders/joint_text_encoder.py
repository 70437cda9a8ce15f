"""Two text encoders as one: their tokens are concatenated, their features are in separate blocks.

For encoders of widths a and b, the sequence has the tokens of the first, then those of the second,
all of width a + b. A token x of the first becomes ``[x, 0]``, and a token y of the second becomes
``[0, y]``. The model's single text projection ``W z + v`` with ``W = [W_a W_b]`` is then
``W_a x + v`` for the first and ``W_b y + v`` for the second. So each encoder has a projection of
its own, except that both share the bias.
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
    """Two text encoders joined into one `arrays.TextEncoder`, as the module describes."""

    def __init__(self, first: TextEncoder, second: TextEncoder) -> None:
        self.parts = (first, second)
        self.kind = f"{first.kind}+{second.kind}"
        self.cacheable = first.cacheable or second.cacheable
        self.params = (first.params, second.params)
        self.max_tokens = first.max_tokens + second.max_tokens
        self.width = first.width + second.width
        self._jitted = jax.jit(self.apply)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns rows of token ids: the first encoder's, followed by the second's."""
        return np.concatenate([part.tokenize(captions) for part in self.parts], axis=1)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Returns, for each caption, whether it loses its tail in either encoder."""
        first, second = (part.truncated(captions) for part in self.parts)
        return first | second

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the joined outputs of both encoders. Pure and jittable.

        Rows may be shorter than `max_tokens`: padding of the second encoder may be missing at the
        end. The first encoder's part must be complete.
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
                f"rows have {length} tokens; this encoder reads {cut + 1} to {self.max_tokens}, of "
                f"which the first {cut} are for {self.parts[0].kind}"
            )
        return token_ids[:, :cut], token_ids[:, cut:]


def join(first: Conditioning, second: Conditioning) -> Conditioning:
    """Joins the outputs of two encoders; `pooled` is the first's, or else the second's."""
    before, after = first.tokens.shape[-1], second.tokens.shape[-1]
    left = jnp.pad(first.tokens, ((0, 0), (0, 0), (0, after)))
    right = jnp.pad(second.tokens, ((0, 0), (0, 0), (before, 0)))
    return Conditioning(
        tokens=jnp.concatenate([left, right], axis=1),
        mask=jnp.concatenate([first.mask, second.mask], axis=1),
        pooled=second.pooled if first.pooled is None else first.pooled,
    )
