"""T5's encoder as a `TextEncoder`, and its loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
from tokenizers import Tokenizer

from pinxit.arrays import ArrayLike, Conditioning
from pinxit.encoders import t5, t5_tokenizer, weights
from pinxit.encoders.config_fields import naming
from pinxit.encoders.t5 import T5Config
from pinxit.encoders.text_encoder_kind import StoredEncoder, TextEncoderKind
from pinxit.encoders.token_rows import Clean, TokenRowEncoder, TokenRows, check_fit
from pinxit.encoders.weights import Sharding, Tree

T5_MAX_TOKENS = 77
"""The default length of a row: that of CLIP, enough for captions (Stable Diffusion 3 has 256)."""
T5_LONGEST = 512
"""The length of the rows that T5 was trained on."""
T5_EOS = 1
"""The id of ``</s>`` in every T5."""
T5_XXL = T5Config(
    d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
"""The encoder of T5 v1.1 XXL."""


class T5TextEncoder(TokenRowEncoder):
    """A T5 encoder and its tokenizer, as `arrays.TextEncoder`; there is no pooled vector."""

    kind = "t5"
    cacheable = True
    """Whether embeddings are worth storing. Those of T5 are, since the larger T5s are slow."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        config: T5Config,
        *,
        params: Tree,
        max_tokens: int = T5_MAX_TOKENS,
        clean: Clean | None = None,
    ) -> None:
        """Makes the encoder. Without a tokenizer, only `apply` and `mask` work (for tracing)."""
        self.config = config
        self.params = params
        self.max_tokens = max_tokens
        self.width = config.d_model
        self.parts = (self,)
        self._eos = T5_EOS
        self._jitted = jax.jit(self.apply)
        if tokenizer is None:
            return
        check_fit(tokenizer, config.vocab_size, max_tokens=max_tokens, longest=T5_LONGEST)
        self._eos = tokenizer.token_to_id(t5_tokenizer.EOS)
        pad = {"pad_id": tokenizer.token_to_id(t5_tokenizer.PAD), "pad_token": t5_tokenizer.PAD}
        self._rows = TokenRows(tokenizer, max_tokens, padding=pad, clean=clean)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the last hidden states and the mask. Jittable."""
        mask = self.mask(token_ids)
        return Conditioning(t5.t5_forward(params, self.config, token_ids, mask), mask)

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """Returns the mask of `apply`: True up to a row's last ``</s>``, False for its padding."""
        positions = jnp.arange(token_ids.shape[1])[None]
        ends = jnp.where(jnp.asarray(token_ids) == self._eos, positions, -1)
        return positions <= ends.max(axis=1, keepdims=True)


def _load_t5(
    stored: StoredEncoder,
    *,
    max_tokens: int | None,
    dtype: str,
    clean: Clean | None,
    sharding: Sharding | None,
) -> T5TextEncoder:
    """Loads the encoder; its rows have `max_tokens` entries, by default 77."""
    tokenizer = t5_tokenizer.load_t5_tokenizer(stored.tokenizer)
    with naming(stored.source, subfolder=stored.folder):
        config = T5Config.from_json(stored.config)
    length = T5_MAX_TOKENS if max_tokens is None else max_tokens
    # Make the encoder before reading gigabytes of weights, since that checks the settings.
    encoder = T5TextEncoder(tokenizer, config, params={}, max_tokens=length, clean=clean)
    encoder.params, _ = t5.load_t5(
        stored.source, subfolder=stored.folder, dtype=dtype, sharding=sharding
    )
    return encoder


def _abstract_t5(config: Mapping[str, Any], *, max_tokens: int | None, dtype: str) -> T5TextEncoder:
    """Makes the encoder that this config.json describes, with shapes of `dtype` as parameters."""
    known = T5Config.from_json(config)
    length = T5_MAX_TOKENS if max_tokens is None else max_tokens
    params = weights.abstract_params(t5.t5_shapes(known), dtype)
    return T5TextEncoder(None, known, params=params, max_tokens=length)


T5 = TextEncoderKind(
    name="t5",
    model_types=("t5",),
    tokenizer_files=t5_tokenizer.FILES,
    takes_max_tokens=True,
    load=_load_t5,
    abstract=_abstract_t5,
    published={"city96/t5-v1_1-xxl-encoder-bf16": T5_XXL.to_json()},
)
