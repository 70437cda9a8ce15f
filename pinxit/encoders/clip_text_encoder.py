"""CLIP's text tower as a `TextEncoder`, and its loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
from tokenizers import Tokenizer

from pinxit.arrays import ArrayLike, Conditioning
from pinxit.config import UsageError
from pinxit.encoders import clip, clip_tokenizer, weights
from pinxit.encoders.clip import text_tower
from pinxit.encoders.clip_config import ClipConfig, ClipTextConfig
from pinxit.encoders.text_encoder_kind import StoredEncoder, TextEncoderKind
from pinxit.encoders.token_rows import Clean, TokenRowEncoder, TokenRows, check_fit
from pinxit.encoders.weights import Sharding, Tree

CLIP_LARGE = ClipConfig(
    text=ClipTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    ),
    projection_dim=768,
)
"""The text tower of CLIP ViT-L/14."""


class ClipTextEncoder(TokenRowEncoder):
    """A CLIP text tower and its tokenizer, as `arrays.TextEncoder`."""

    kind = "clip"
    cacheable = False
    """Whether embeddings are worth storing. CLIP's are not: they are larger than a latent, and
    cheap to compute."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        config: ClipConfig,
        *,
        params: Tree,
        max_tokens: int,
        clean: Clean | None = None,
    ) -> None:
        """Makes the encoder. Without a tokenizer, only `apply` and `mask` work (for tracing)."""
        tower, longest = text_tower(config), text_tower(config).max_position_embeddings
        self.params = params
        self.max_tokens = max_tokens
        self.width = tower.hidden_size
        self.config = config
        self.parts = (self,)
        self._jitted = jax.jit(self.apply)
        if tokenizer is None:
            return
        check_fit(tokenizer, tower.vocab_size, max_tokens=max_tokens, longest=longest)
        eos = tokenizer.token_to_id(clip_tokenizer.EOS)
        if eos is None:
            raise UsageError(f"the tokenizer lacks {clip_tokenizer.EOS!r}")
        self.config = replace(config, text=replace(tower, eos_token_id=eos))
        padding = tokenizer.padding or {"pad_id": eos, "pad_token": clip_tokenizer.EOS}
        self._rows = TokenRows(tokenizer, max_tokens, padding=padding, clean=clean)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the last hidden states, the mask, and the state at EOS as `pooled`. Jittable."""
        output = clip.text_forward(params, self.config, token_ids)
        return Conditioning(output.hidden, self.mask(token_ids), pooled=output.pooled)

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """Returns the mask of `apply`: True from BOS to the first EOS, both included."""
        last = clip.end_of_text(text_tower(self.config), token_ids)
        return jnp.arange(token_ids.shape[1])[None] <= last[:, None]


def _load_clip(
    stored: StoredEncoder,
    *,
    max_tokens: int | None,
    dtype: str,
    clean: Clean | None,
    sharding: Sharding | None,
) -> ClipTextEncoder:
    """Loads the encoder; `max_tokens` must be None or the number of the tower's positions."""
    tokenizer, longest = clip_tokenizer.load_clip_tokenizer(stored.tokenizer)
    params, config = clip.load_clip(
        stored.source, subfolder=stored.folder, only="text", dtype=dtype, sharding=sharding
    )
    length = min(longest, text_tower(config).max_position_embeddings)
    if max_tokens not in (None, length):
        problem = "not the number of positions of this CLIP"
        raise UsageError("max_tokens", max_tokens, problem=problem, valid=[length])
    return ClipTextEncoder(tokenizer, config, params=params, max_tokens=length, clean=clean)


def _abstract_clip(
    config: Mapping[str, Any], *, max_tokens: int | None, dtype: str
) -> ClipTextEncoder:
    """Makes the encoder that this config.json describes, with shapes of `dtype` as parameters."""
    whole = ClipConfig.from_json(config)
    text = ClipConfig(text=text_tower(whole), projection_dim=whole.projection_dim)
    length = text_tower(text).max_position_embeddings
    params = weights.abstract_params(clip.clip_shapes(text), dtype)
    return ClipTextEncoder(None, text, params=params, max_tokens=length)


CLIP = TextEncoderKind(
    name="clip",
    model_types=("clip", "clip_text_model"),
    tokenizer_files=clip_tokenizer.FILES,
    takes_max_tokens=False,
    load=_load_clip,
    abstract=_abstract_clip,
    published={"openai/clip-vit-large-patch14": CLIP_LARGE.to_json()},
)
