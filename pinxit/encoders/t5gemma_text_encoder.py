"""T5Gemma's encoder as a `TextEncoder`, and its loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from pinxit.arrays import ArrayLike, Conditioning
from pinxit.encoders import t5gemma, t5gemma_tokenizer, weights
from pinxit.encoders.config_fields import naming
from pinxit.encoders.t5gemma import T5GemmaConfig
from pinxit.encoders.t5gemma_tokenizer import GemmaTokens
from pinxit.encoders.text_encoder_kind import StoredEncoder, TextEncoderKind
from pinxit.encoders.token_rows import Clean, TokenRowEncoder, TokenRows, check_fit
from pinxit.encoders.weights import Sharding, Tree

T5GEMMA_MAX_TOKENS = 256
"""The default length of a row, which is that of the PRX models."""
T5GEMMA_2B = T5GemmaConfig()
"""The encoder of T5Gemma 2B-2B."""


class T5GemmaTextEncoder(TokenRowEncoder):
    """A T5Gemma encoder and its tokenizer, as `arrays.TextEncoder`; there is no pooled vector."""

    kind = "t5gemma"
    cacheable = True
    """Whether embeddings are worth storing. Those of T5Gemma are, since the encoder is slow."""

    def __init__(
        self,
        tokens: GemmaTokens | None,
        config: T5GemmaConfig,
        *,
        params: Tree,
        max_tokens: int = T5GEMMA_MAX_TOKENS,
        clean: Clean | None = None,
    ) -> None:
        """Makes the encoder. Without a tokenizer, only `apply` and `mask` work (for tracing)."""
        self.config = config
        self.params = params
        self.max_tokens = max_tokens
        self.width = config.hidden_size
        self.parts = (self,)
        self._pad, self._side = config.pad_token_id, "right"
        self._jitted = jax.jit(self.apply)
        if tokens is None:
            return
        longest = config.max_position_embeddings
        check_fit(tokens.tokenizer, config.vocab_size, max_tokens=max_tokens, longest=longest)
        self._pad, self._side = tokens.pad_id, tokens.side
        padding = tokens.padding()
        self._rows = TokenRows(tokens.tokenizer, max_tokens, padding=padding, clean=clean)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the last hidden states and the mask. Jittable."""
        mask = self.mask(token_ids)
        return Conditioning(t5gemma.t5gemma_forward(params, self.config, token_ids, mask), mask)

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """Returns the mask of `apply`: False for the padding at one end of a row, True elsewhere.

        It is False everywhere for a caption without tokens. A ``<pad>`` that a caption itself
        contains is True, unless it borders on the padding.
        """
        tokens = jnp.asarray(token_ids) != self._pad
        if self._side == "left":
            return jnp.cumsum(tokens, axis=1) > 0
        return jnp.cumsum(tokens[:, ::-1], axis=1)[:, ::-1] > 0


def _load_t5gemma(
    stored: StoredEncoder,
    *,
    max_tokens: int | None,
    dtype: str,
    clean: Clean | None,
    sharding: Sharding | None,
) -> T5GemmaTextEncoder:
    """Loads the encoder; its rows have `max_tokens` entries, by default `default_length`."""
    tokens = t5gemma_tokenizer.load_gemma_tokenizer(stored.tokenizer)
    with naming(stored.source, subfolder=stored.folder):
        config = T5GemmaConfig.from_json(stored.config)
    length = default_length(config) if max_tokens is None else max_tokens
    # Make the encoder before reading gigabytes of weights, since that checks the settings.
    encoder = T5GemmaTextEncoder(tokens, config, params={}, max_tokens=length, clean=clean)
    encoder.params, _ = t5gemma.load_t5gemma(
        stored.source, subfolder=stored.folder, dtype=dtype, sharding=sharding
    )
    return encoder


def _abstract_t5gemma(
    config: Mapping[str, Any], *, max_tokens: int | None, dtype: str
) -> T5GemmaTextEncoder:
    """Makes the encoder that this config.json describes, with shapes of `dtype` as parameters."""
    known = T5GemmaConfig.from_json(config)
    length = default_length(known) if max_tokens is None else max_tokens
    params = weights.abstract_params(t5gemma.t5gemma_shapes(known), dtype)
    return T5GemmaTextEncoder(None, known, params=params, max_tokens=length)


def default_length(config: T5GemmaConfig) -> int:
    """Returns 256, or the number of positions if that is less."""
    return min(T5GEMMA_MAX_TOKENS, config.max_position_embeddings)


T5GEMMA = TextEncoderKind(
    name="t5gemma",
    model_types=(t5gemma.WHOLE, t5gemma.MODULE),
    tokenizer_files=t5gemma_tokenizer.FILES,
    takes_max_tokens=True,
    load=_load_t5gemma,
    abstract=_abstract_t5gemma,
    published={"google/t5gemma-2b-2b-ul2": T5GEMMA_2B.to_json()},
)
