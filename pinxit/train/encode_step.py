"""The first part of the training step: images to latents, captions to conditioning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from pinxit.arrays import Autoencoder, Batch, Conditioning, to_pixels
from pinxit.data.image_column import LATENTS, images_in
from pinxit.encoders.text_columns import TextColumns
from pinxit.train.step import EncodeFn, cut, uncut


def frozen_arrays(
    text: TextColumns, columns: Mapping[str, Any], autoencoder: Autoencoder | None
) -> dict[str, Any]:
    """Returns the arrays that a step needs besides a batch: the weights of the encoders that run in
    it, and the encoded empty prompt. `autoencoder` is None unless it runs in the step."""
    frozen = text.frozen(dict(columns))
    return frozen if autoencoder is None else {**frozen, "vae": autoencoder.params}


def make_encode(
    text: TextColumns, autoencoder: Autoencoder | None = None, *, chunk: int = 0
) -> EncodeFn:
    """Makes the part of the step before the objective: from a batch's columns to a `Batch`.

    Images become pixels in [-1, 1], which are the latents of a pixel model, or go through
    `autoencoder`. `chunk` rows are encoded at once (0: all), which limits the memory.
    """

    def rows(frozen: Any, columns: dict[str, Any]) -> tuple[Any, ...]:
        """Returns latents and the fields of the conditioning."""
        conditioning = text.conditioning(frozen, columns)
        fields = (conditioning.tokens, conditioning.mask, conditioning.pooled)
        name, images = images_in(columns)
        if name == LATENTS:
            return images, *fields
        pixels = to_pixels(images)
        if autoencoder is None:
            return pixels, *fields
        return autoencoder.encode(frozen["vae"], pixels), *fields

    def encode(frozen: Any, columns: dict[str, Any]) -> Batch:
        size = len(columns["index"])
        if not chunk or chunk >= size:
            latents, *fields = rows(frozen, columns)
        else:
            pieces = jax.lax.map(lambda piece: rows(frozen, piece), cut(columns, size // chunk))
            latents, *fields = uncut(pieces)
        return Batch(latents, Conditioning(*fields), columns["index"], frozen["null"])

    return encode
