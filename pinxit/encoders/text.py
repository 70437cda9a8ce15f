"""Captions to `Conditioning`: CLIP, T5, or both, found by name, in a directory or on the Hub.

Each encoder tokenises on the host (`clip_tokenizer`, `t5_tokenizer`) and runs its network in JAX
(`clip`, `t5`). Every row has exactly `max_tokens` entries, and the mask is true from the first
token to the one that ends the text.

With two encoders of widths a and b, the tokens of both stand one after the other and the features
of each in a block of their own, zero elsewhere: a token x of the first is ``[x, 0]`` and a token y
of the second ``[0, y]``, of width a + b. The model's one projection of its text, ``W z + v``, is
then ``W_a x + v`` for the first and ``W_b y + v`` for the second, where ``W = [W_a W_b]``: exactly
a projection for each, but for the bias, which they share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int
from tokenizers import Tokenizer

from pinxit.arrays import ArrayLike, Conditioning, TextEncoder
from pinxit.config import UsageError, choice
from pinxit.encoders import clip, clip_tokenizer, t5, t5_tokenizer, weights
from pinxit.encoders.clip import ClipConfig, text_tower
from pinxit.encoders.clip_tokenizer import load_clip_tokenizer as load_clip_tokenizer
from pinxit.encoders.clip_tokenizer import train_clip_tokenizer as train_clip_tokenizer
from pinxit.encoders.t5 import T5Config
from pinxit.encoders.token_rows import Clean, Rows, check_fit
from pinxit.encoders.weights import Sharding, Tree

T5_MAX_TOKENS = 77
"""As many as CLIP reads, and enough for captions; Stable Diffusion 3 gives T5 256."""
T5_LONGEST = 512
"""The rows that T5 was trained on."""
T5_EOS = 1
"""The end of a row, by its number, in every T5."""
KINDS = {"clip": "clip", "clip_text_model": "clip", "t5": "t5"}
"""What kind of encoder a config.json is of, by its ``model_type``."""
SUFFIXES = ("", "_2", "_3")
"""Of a pipeline's folders: ``text_encoder_2`` goes with ``tokenizer_2``."""
DESCRIPTIONS = [
    *("config.json", *(f"text_encoder{suffix}/config.json" for suffix in SUFFIXES)),
    *(
        folder + name
        for folder in ("", *(f"tokenizer{suffix}/" for suffix in SUFFIXES))
        for name in sorted({*clip_tokenizer.FILES, *t5_tokenizer.FILES})
    ),
]
"""What is fetched of a Hub repository before it is known which weights to fetch."""


class ClipTextEncoder:
    """A CLIP text tower and its tokenizer, as `arrays.TextEncoder`."""

    kind = "clip"
    cacheable = False
    """Whether embeddings are worth storing: CLIP's are large beside a latent, and cheap to make."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        config: ClipConfig,
        *,
        params: Tree,
        max_tokens: int,
        clean: Clean | None = None,
    ) -> None:
        """Without a tokenizer only `apply` and `mask` work, which is what a compiler asks for."""
        tower, longest = text_tower(config), text_tower(config).max_position_embeddings
        self.params = params
        self.max_tokens = max_tokens
        self.width = tower.hidden_size
        self.config = config
        self._jitted = jax.jit(self.apply)
        if tokenizer is None:
            return
        check_fit(tokenizer, tower.vocab_size, max_tokens=max_tokens, longest=longest)
        eos = tokenizer.token_to_id(clip_tokenizer.EOS)
        if eos is None:
            raise ValueError(f"the tokenizer lacks {clip_tokenizer.EOS!r}")
        self.config = replace(config, text=replace(tower, eos_token_id=eos))
        padding = tokenizer.padding or {"pad_id": eos, "pad_token": clip_tokenizer.EOS}
        self._rows = Rows(tokenizer, max_tokens, padding=padding, clean=clean)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Token ids, padded or truncated to exactly `max_tokens`."""
        return self._rows.ids(captions)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Which captions lose their tail."""
        return self._rows.truncated(captions)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Last hidden states, the mask from BOS to EOS, and the state at EOS. Pure and jittable."""
        output = clip.text_forward(params, self.config, token_ids)
        return Conditioning(output.hidden, self.mask(token_ids), pooled=output.pooled)

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """True from BOS to the first EOS; `apply` gives the same."""
        last = clip.end_of_text(text_tower(self.config), token_ids)
        return jnp.arange(token_ids.shape[1])[None] <= last[:, None]

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        return self._jitted(self.params, self.tokenize(captions))


class T5TextEncoder:
    """A T5 encoder and its tokenizer, as `arrays.TextEncoder`; there is no pooled vector."""

    kind = "t5"
    cacheable = True
    """The larger T5s are costly to run, so their embeddings are worth storing."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        config: T5Config,
        *,
        params: Tree,
        max_tokens: int = T5_MAX_TOKENS,
        clean: Clean | None = None,
    ) -> None:
        """Without a tokenizer only `apply` and `mask` work, which is what a compiler asks for."""
        self.config = config
        self.params = params
        self.max_tokens = max_tokens
        self.width = config.d_model
        self._eos = T5_EOS
        self._jitted = jax.jit(self.apply)
        if tokenizer is None:
            return
        check_fit(tokenizer, config.vocab_size, max_tokens=max_tokens, longest=T5_LONGEST)
        self._eos = tokenizer.token_to_id(t5_tokenizer.EOS)
        pad = {"pad_id": tokenizer.token_to_id(t5_tokenizer.PAD), "pad_token": t5_tokenizer.PAD}
        self._rows = Rows(tokenizer, max_tokens, padding=pad, clean=clean)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Token ids, padded or truncated to exactly `max_tokens`."""
        return self._rows.ids(captions)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Which captions lose their tail."""
        return self._rows.truncated(captions)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Last hidden states, and the mask up to the row's last ``</s>``. Pure and jittable."""
        mask = self.mask(token_ids)
        return Conditioning(t5.t5_forward(params, self.config, token_ids, mask), mask)

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """True up to the last ``</s>``, which ends every row; `apply` gives the same."""
        places = jnp.arange(token_ids.shape[1])[None]
        ends = jnp.where(jnp.asarray(token_ids) == self._eos, places, -1)
        return places <= ends.max(axis=1, keepdims=True)

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        return self._jitted(self.params, self.tokenize(captions))


SingleEncoder = ClipTextEncoder | T5TextEncoder


class JointTextEncoder:
    """Two encoders in one: tokens along the sequence, features in blocks (see the module)."""

    def __init__(self, first: SingleEncoder, second: SingleEncoder) -> None:
        self.parts = (first, second)
        self.kind = f"{first.kind}+{second.kind}"
        self.cacheable = first.cacheable or second.cacheable
        self.params = (first.params, second.params)
        self.max_tokens = first.max_tokens + second.max_tokens
        self.width = first.width + second.width
        self._jitted = jax.jit(self.apply)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """The first encoder's row, then the second's."""
        return np.concatenate([part.tokenize(captions) for part in self.parts], axis=1)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Which captions lose their tail in either encoder."""
        first, second = (part.truncated(captions) for part in self.parts)
        return first | second

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Both encoders' outputs, joined. Pure and jittable.

        Rows may be cut at the end, where the second encoder's padding is; the first encoder's
        part is always whole.
        """
        rows = self._split(token_ids)
        triples = zip(self.parts, params, rows, strict=True)
        return self.join(*(part.apply(own, ids) for part, own, ids in triples))

    def mask(self, token_ids: Int[ArrayLike, "b l"]) -> Bool[Array, "b l"]:
        """Both masks; `apply` gives the same. Its true entries are not one run."""
        pairs = zip(self.parts, self._split(token_ids), strict=True)
        return jnp.concatenate([part.mask(ids) for part, ids in pairs], axis=1)

    def join(self, first: Conditioning, second: Conditioning) -> Conditioning:
        """What the two encoders say, each of any length, as one; `pooled` is CLIP's."""
        before, after = (part.width for part in self.parts)
        left = jnp.pad(first.tokens, ((0, 0), (0, 0), (0, after)))
        right = jnp.pad(second.tokens, ((0, 0), (0, 0), (before, 0)))
        return Conditioning(
            tokens=jnp.concatenate([left, right], axis=1),
            mask=jnp.concatenate([first.mask, second.mask], axis=1),
            pooled=second.pooled if first.pooled is None else first.pooled,
        )

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


def load_text_encoder(
    source: str | Path,
    *,
    max_tokens: int | None = None,
    dtype: str = "float32",
    clean: Clean | None = None,
    sharding: Sharding | None = None,
) -> TextEncoder:
    """A text encoder by name, from a directory, from the Hub, or two of these (``clip+t5``).

    A directory or repository (``owner/name``, ``owner/name@revision``) is flat or a pipeline's:
    then the first of ``text_encoder``, ``text_encoder_2`` and ``text_encoder_3`` that is a CLIP is
    taken, else the first T5; the second of two is the other kind, where it is there. A pipeline's
    folder may be named by itself (``DIR/text_encoder_3``); its tokenizer lies beside it.

    `max_tokens` is the length of T5's rows (2 to 512, by default 77); CLIP's are as long as its
    positions. `dtype` is that of parameters and activations, "float32" or "bfloat16". `clean` is
    applied to every caption. `sharding` tells where each parameter goes (`weights.Sharding`).
    Raises `ValueError` for what is missing, damaged, unknown or does not fit together.
    """
    choice("dtype", dtype, weights.PARAMETER_DTYPES)
    places = _places(source)
    if "t5" in (kinds := [place.kind for place in places]):
        rows = [max_tokens if kind == "t5" else None for kind in kinds]
    else:
        rows = [max_tokens for _ in kinds]
    encoders = [
        LOADERS[place.kind](place, max_tokens=length, dtype=dtype, clean=clean, sharding=sharding)
        for place, length in zip(places, rows, strict=True)
    ]
    return encoders[0] if len(encoders) == 1 else JointTextEncoder(*encoders)


def check_text_encoder(source: str | Path) -> None:
    """Raises as `load_text_encoder` where there is nothing at `source`; reads no weights."""
    _places(source)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an encoder was found, before its weights are read."""

    source: str | Path
    """A directory or a repository id."""
    folder: str
    """Of the config and the weights, below `source`; empty where it is flat."""
    tokenizer: Path
    """The tokenizer's directory."""
    config: dict[str, Any]
    """The contents of config.json."""
    kind: str


def _places(source: str | Path) -> list[Place]:
    if not isinstance(source, str) or "+" not in source or Path(source).is_dir():
        return [_find(source, prefer="clip")]
    parts = source.split("+")
    if len(parts) != 2 or not all(parts):
        form = "A+B, each a name, a directory or a Hub repository id"
        raise UsageError("text_encoder", source, problem="not one encoder or two", valid=form)
    first = _find(parts[0], prefer="clip")
    return [first, _find(parts[1], prefer="t5" if first.kind == "clip" else "clip")]


def _find(source: str | Path, *, prefer: str) -> Place:
    """The encoder at `source`, of the preferred kind if there is a choice."""
    if isinstance(source, str) and source in TEXT_ENCODERS:
        source = TEXT_ENCODERS[source]()
    root = weights.resolve(source, allow=DESCRIPTIONS, names=TEXT_ENCODERS)
    folders = [f"text_encoder{suffix}" for suffix in SUFFIXES]
    folders = [folder for folder in folders if (root / folder).is_dir()] or [""]
    configs = {folder: weights.read_json(root / folder / "config.json") for folder in folders}
    kinds = {folder: KINDS.get(str(config.get("model_type"))) for folder, config in configs.items()}
    fitting = sorted((f for f in folders if kinds[f]), key=lambda f: kinds[f] != prefer)
    if not fitting:
        types = ", ".join(repr(config.get("model_type")) for config in configs.values())
        known = ", ".join(KINDS)
        raise ValueError(f"{source}: unknown architecture, model_type is {types}; known: {known}")
    folder = fitting[0]
    return Place(
        source=source,
        folder=folder,
        tokenizer=_tokenizer_directory(root, folder),
        config=configs[folder],
        kind=str(kinds[folder]),
    )


def _tokenizer_directory(root: Path, folder: str) -> Path:
    """A folder below, the folder beside, or the directory of the weights itself."""
    if folder:
        below = root / folder.replace("text_encoder", "tokenizer")
        return below if below.is_dir() else root
    named = re.fullmatch(r"text_encoder(_\d)?", root.name)
    beside = root.parent / f"tokenizer{named[1] or ''}" if named else root / "tokenizer"
    return beside if beside.is_dir() else root


def _load_clip(
    place: Place,
    *,
    max_tokens: int | None,
    dtype: str,
    clean: Clean | None,
    sharding: Sharding | None,
) -> ClipTextEncoder:
    tokenizer, longest = load_clip_tokenizer(place.tokenizer)
    params, config = clip.load_clip(
        place.source, subfolder=place.folder, only="text", dtype=dtype, sharding=sharding
    )
    length = min(longest, text_tower(config).max_position_embeddings)
    if max_tokens not in (None, length):
        raise UsageError("max_tokens", max_tokens, problem="not this CLIP's", valid=[length])
    return ClipTextEncoder(tokenizer, config, params=params, max_tokens=length, clean=clean)


def _load_t5(
    place: Place,
    *,
    max_tokens: int | None,
    dtype: str,
    clean: Clean | None,
    sharding: Sharding | None,
) -> T5TextEncoder:
    tokenizer = t5_tokenizer.load_t5_tokenizer(place.tokenizer)
    config = T5Config.from_json(place.config)
    length = T5_MAX_TOKENS if max_tokens is None else max_tokens
    # Everything is checked before gigabytes are read.
    encoder = T5TextEncoder(tokenizer, config, params={}, max_tokens=length, clean=clean)
    encoder.params, _ = t5.load_t5(
        place.source, subfolder=place.folder, dtype=dtype, sharding=sharding
    )
    return encoder


LOADERS: dict[str, Callable[..., SingleEncoder]] = {"clip": _load_clip, "t5": _load_t5}
"""By kind."""

TEXT_ENCODERS: dict[str, Callable[[], str | Path]] = {
    "tiny": lambda: weights.bundled("tiny"),
    "clip": lambda: "openai/clip-vit-large-patch14",
    "t5": lambda: "city96/t5-v1_1-xxl-encoder-bf16",
    "clip+t5": lambda: "clip+t5",
}
"""Text encoders by name; a directory, a repository id and a pair ``A+B`` need no entry."""
