"""The glossary: axis letters, the records that cross module borders, the protocols at the seams.

One legend serves the whole package. A shape such as ``Float[Array, "b h w c"]`` reads:

===== =====================================================
``b`` batch
``h w`` height and width of the latent grid (of the image, when there is no autoencoder)
``c`` channels of the latents (3 for pixels)
``n`` image tokens, ``n = (h / patch) * (w / patch)``
``l`` text tokens
``e`` width of the text encoder
``p`` width of the pooled text vector
``d`` width of the model (``hidden_size``)
``k f`` attention heads and the width of one head, ``d = k * f``
===== =====================================================

Time ``t`` runs from 0 (data) to 1 (noise), and ``x_t = (1 - t) * latents + t * noise``. A model
predicts ``velocity = noise - latents`` (flow matching: Lipman et al. 2022, arXiv:2210.02747;
rectified flow: Liu et al. 2022, arXiv:2209.03003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ArrayLike = Array | np.ndarray
T = TypeVar("T")


def to_pixels(images: ArrayLike) -> ArrayLike:
    """Images of bytes as float32 in [-1, 1], which models read."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Images in [-1, 1] as bytes."""
    return np.clip(np.round((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def pytree(cls: type[T]) -> type[T]:
    """Makes a dataclass of arrays a pytree.

    What `jax.tree.map` and the compiler put in the arrays' places (shapes, shardings) is not
    checked against the fields' types.
    """
    keys = [jax.tree_util.GetAttrKey(f.name) for f in fields(cls)]  # type: ignore[arg-type]

    def flatten(record: T) -> tuple[list[Any], None]:
        return [(key, getattr(record, key.name)) for key in keys], None

    def unflatten(_: None, leaves: Any) -> T:
        record = object.__new__(cls)
        for key, leaf in zip(keys, leaves, strict=True):
            object.__setattr__(record, key.name, leaf)
        return record

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls


@pytree
@dataclass(frozen=True)
class Conditioning:
    """What the model is told about the picture: text tokens, which are real, a pooled vector."""

    tokens: Float[ArrayLike, "b l e"]
    """Last hidden state of the text encoder."""
    mask: Bool[ArrayLike, "b l"]
    """True from the first token (BOS) to the last real one (EOS); padding is False."""
    pooled: Float[ArrayLike, "b p"] | None = None
    """One vector per caption, where the encoder has one."""


@pytree
@dataclass(frozen=True)
class Batch:
    """One training batch, as an `Objective` sees it."""

    latents: Float[ArrayLike, "b h w c"]
    """Clean, normalised latents (or pixels in [-1, 1])."""
    conditioning: Conditioning
    index: Int[ArrayLike, " b"]
    """Position of each sample in the run's order of samples; randomness is folded with it."""
    null: Conditioning
    """The encoded empty prompt, with ``b = 1``."""


@dataclass(frozen=True)
class LatentStats:
    """From raw latents (the autoencoder's) to latents (the model's): ``(raw - shift) * scale``."""

    scale: float = 1.0
    shift: float = 0.0
    channels: int = 4
    downsample: int = 8
    """Image pixels per latent cell, along one side."""


@runtime_checkable
class VelocityFn(Protocol):
    """The seam between model, guidance and solver."""

    def __call__(
        self,
        x_t: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        conditioning: Conditioning,
    ) -> Float[Array, "b h w c"]: ...


@runtime_checkable
class Objective(Protocol):
    """The seam between model and training. It owns noise, time and caption dropout.

    It is a frozen dataclass whose fields are its settings.
    """

    @property
    def caption_dropout(self) -> float:
        """Share of samples that are trained without their caption; advice on guidance reads it."""
        ...

    def loss(
        self, model: VelocityFn, batch: Batch, *, key: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Mean loss over the batch, and metrics; `key` is already folded with the step.

        The metrics may be empty. Scalars are averaged over batches and arrays are added; a pair
        ``x_sum``, ``x_count`` becomes ``x``. Known names: ``loss_of_zero``, ``loss_by_t``.
        """
        ...

    def error(
        self,
        model: VelocityFn,
        latents: Float[Array, "b h w c"],
        conditioning: Conditioning,
        *,
        noise: Float[Array, "b h w c"],
        t: Float[Array, " b"],
    ) -> Float[Array, " b"]:
        """Each sample's loss at given noise and time, without dropout, for validation."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Captions to `Conditioning`, in two halves so that the second can run inside a jitted step."""

    kind: str
    """A short name for messages, such as "t5"."""
    max_tokens: int
    """The length of a row of token ids."""
    width: int
    """The width ``e`` of a token's features."""
    params: Any
    """Frozen weights, a pytree: an argument of `apply`, never closed over by a jitted function."""
    cacheable: bool
    """Whether embeddings are computed once and stored, or again in every step. CLIP's are large
    beside a latent and cheap to make; those of the larger T5s are costly, so worth storing."""

    @property
    def parts(self) -> tuple[TextEncoder, ...]:
        """The encoders that it joins; ``(self,)`` for a single one."""
        ...

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns token ids on the host, padded or truncated to exactly `max_tokens`."""
        ...

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Tells which captions have more tokens than are read."""
        ...

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the conditioning of rows of ids. Rows may be shorter than `max_tokens`, where the
        masks of all leave out the last columns. Pure and jittable."""
        ...

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """Returns `apply` of the captions' tokens, jitted."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """Images in [-1, 1] to normalised latents and back; also the identity, for pixel models."""

    stats: LatentStats
    params: Any

    def encode(
        self, params: Any, images: Float[ArrayLike, "b hi wi 3"], *, key: Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Normalised latents: the posterior's mean, or a sample given `key`. Pure and jittable."""
        ...

    def decode(
        self, params: Any, latents: Float[ArrayLike, "b h w c"]
    ) -> Float[Array, "b hi wi 3"]:
        """Images in [-1, 1], not clipped. Pure and jittable."""
        ...


@dataclass(frozen=True)
class Example:
    """One row of a dataset before encoding."""

    image: np.ndarray
    """uint8, (height, width, 3)."""
    caption: str
    attributes: dict[str, str] = field(default_factory=dict)
    """Known facts about the image (scenes only)."""
