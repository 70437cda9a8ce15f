"""CLIP's embeddings of a picture and of its prompt, whose cosine says how well they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from pinxit.encoders.clip import text_forward
from pinxit.encoders.clip_text_encoder import ClipTextEncoder
from pinxit.encoders.fingerprint import fingerprint
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.extractors.clip_features import ClipImages


class ClipPairs:
    """The normalised embeddings of a picture and of its prompt, one after the other.

    A row has both, so that a picture can also be compared with the prompts of others.
    """

    def __init__(self, images: ClipImages, text: ClipTextEncoder) -> None:
        """Extracts with both towers of one CLIP."""
        self._images, self.text = images, text
        config = text.config

        def apply(params: Any, token_ids: Array) -> Array:
            with jax.default_matmul_precision("highest"):
                projected = text_forward(params, config, token_ids).projected
            assert projected is not None
            return projected

        self._texts = BatchedNetwork(apply, text.params)

    @property
    def name(self) -> str:
        """The name of the features; that of the network is in `network`."""
        return f"{self.network}_pairs"

    @property
    def network(self) -> str:
        """The network's name, which tables show."""
        return self._images.name

    @property
    def width(self) -> int:
        """The width of both embeddings, twice that of the projection."""
        return 2 * self._images.width

    def about(self) -> Mapping[str, Any]:
        """Returns the fingerprints of both towers, the resizing and the length of a text."""
        return {
            "name": self.name,
            "images": dict(self._images.about()),
            "text": fingerprint(self.text.params),
            "max_tokens": self.text.max_tokens,
        }

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the embedding of each picture and of its prompt, each of length 1."""
        halves = self._images(pictures, prompts), self._texts(self.text.tokenize(prompts))
        return np.concatenate([half / _length(half) for half in halves], axis=1)

    def cosines(
        self, rows: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n d"] | None = None
    ) -> Float[np.ndarray, " n"]:
        """Returns the cosine of each row's picture and its text, or the text of a row of `texts`.

        A cosine is computed in float64.
        """
        images, texts = (
            np.asarray(x, np.float64) for x in (rows, rows if texts is None else texts)
        )
        width = self._images.width
        return (images[:, :width] * texts[:, width:]).sum(axis=1)

    def cut(self, prompts: Sequence[str]) -> Bool[np.ndarray, " n"]:
        """Returns whether each prompt has more tokens than the text tower reads."""
        return self.text.truncated(prompts)


def _length(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 1"]:
    return np.linalg.norm(rows, axis=1, keepdims=True)
