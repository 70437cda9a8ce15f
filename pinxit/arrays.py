"""The axis letters, records of arrays and protocols that the whole package uses.

The letters in a shape such as ``Float[Array, "b h w c"]`` mean:

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
    """Converts uint8 images to float32 in [-1, 1], the input of models."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Converts images in [-1, 1] to uint8; values outside are clipped."""
    return np.clip(np.round((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def pytree(cls: type[T]) -> type[T]:
    """Registers a dataclass of arrays as a pytree.

    `jax.tree.map` and the compiler may replace the arrays by other values (shapes, shardings), so
    unflattening does not check the fields' types.
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
    """The encoded caption of a picture: text tokens, their mask, and perhaps a pooled vector."""

    tokens: Float[ArrayLike, "b l e"]
    """The last hidden states of the text encoder."""
    mask: Bool[ArrayLike, "b l"]
    """True from a row's first token to its last; padding, at either end of the row, is False."""
    pooled: Float[ArrayLike, "b p"] | None = None
    """One vector per caption, or None if the encoder has none."""


@pytree
@dataclass(frozen=True)
class Batch:
    """One training batch, the input of an `Objective`."""

    latents: Float[ArrayLike, "b h w c"]
    """Clean, normalised latents (or pixels in [-1, 1])."""
    conditioning: Conditioning
    index: Int[ArrayLike, " b"]
    """The position of each sample in the run's order of samples. Random keys are folded with it."""
    null: Conditioning
    """The encoded empty prompt, with ``b = 1``."""


@dataclass(frozen=True)
class LatentStats:
    """The normalisation and shape of latents: ``latents = (raw - shift) * scale``.

    Raw latents are those of the autoencoder, and latents are those of the model.
    """

    scale: float = 1.0
    shift: float = 0.0
    channels: int = 4
    downsample: int = 8
    """The number of image pixels along a side of one latent cell."""


@runtime_checkable
class VelocityFn(Protocol):
    """The interface between model, guidance and solver: predicts the velocity at `x_t` and `t`."""

    def __call__(
        self,
        x_t: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        conditioning: Conditioning,
    ) -> Float[Array, "b h w c"]: ...


@runtime_checkable
class Objective(Protocol):
    """The interface between model and training. It samples noise, times and caption dropout.

    An objective is a frozen dataclass whose fields are its settings.
    """

    @property
    def caption_dropout(self) -> float:
        """The fraction of samples that are trained without their caption, for guidance advice."""
        ...

    def loss(
        self, model: VelocityFn, batch: Batch, *, key: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Returns the mean loss over the batch, and metrics; `key` is already folded with the step.

        The metrics may be empty. Over several batches, scalars are averaged and arrays are added.
        Then each pair ``x_sum``, ``x_count`` becomes the quotient ``x``. The names ``loss_of_zero``
        and ``loss_by_t`` have a meaning for reports (see `FlowMatching.loss`).
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
        """Returns each sample's loss at this noise and time, without dropout, for validation."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Encodes captions to a `Conditioning` in two steps: `tokenize` on the host, then `apply`.

    `apply` can run inside a jitted training step.
    """

    kind: str
    """A short name for messages, such as "t5"."""
    max_tokens: int
    """The length of a row of token ids."""
    width: int
    """The width ``e`` of a token's features."""
    params: Any
    """The frozen weights as a pytree. They are passed to `apply`, so that no jitted function
    contains them as constants."""
    cacheable: bool
    """Whether embeddings are computed once and stored (True) or computed in every step. CLIP's are
    larger than a latent and cheap to compute. Those of large T5s and T5Gemmas are expensive."""

    @property
    def parts(self) -> tuple[TextEncoder, ...]:
        """The encoders that are joined in this one, or ``(self,)`` for a single encoder."""
        ...

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns token ids on the host, padded or truncated to exactly `max_tokens`."""
        ...

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Returns, for each caption, whether it has more than `max_tokens` tokens."""
        ...

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Returns the conditioning of rows of token ids. Pure and jittable.

        Rows may be shorter than `max_tokens` if the omitted columns are padding in all rows.
        """
        ...

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """Tokenises captions and returns their conditioning; uses a jitted `apply`."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """Maps images in [-1, 1] to normalised latents and back. The identity serves pixel models."""

    stats: LatentStats
    params: Any

    def encode(
        self, params: Any, images: Float[ArrayLike, "b hi wi 3"], *, key: Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Returns normalised latents: the posterior's mean, or with a `key` a sample from it.

        Pure and jittable.
        """
        ...

    def decode(
        self, params: Any, latents: Float[ArrayLike, "b h w c"]
    ) -> Float[Array, "b hi wi 3"]:
        """Returns images with values in about [-1, 1], not clipped. Pure and jittable."""
        ...


@dataclass(frozen=True)
class Example:
    """One row of a dataset before encoding."""

    image: np.ndarray
    """The image as uint8, of shape (height, width, 3)."""
    caption: str
    attributes: dict[str, str] = field(default_factory=dict)
    """The known attributes of the image (scenes only)."""
