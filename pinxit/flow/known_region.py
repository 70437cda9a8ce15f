"""Keeps a known region of the latents on its own path while a solver moves the rest (inpainting).

Where the mask is 0, the velocity is replaced by that of the straight path between the known latents
and the noise of the picture::

    v = mask * velocity(x_t, t) + (1 - mask) * (noise - latents)

That velocity is constant, so every solver keeps the known region exactly on
``x_t = (1 - t) * latents + t * noise`` and ends in the latents. The model sees the known region
with the noise of the current time, as in training, and continues it in the region to repaint.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from pinxit.arrays import Conditioning, VelocityFn
from pinxit.flow.path import velocity


def known_motion(
    latents: Float[Array, "b h w c"], noise: Float[Array, "b h w c"], mask: Float[Array, "b h w 1"]
) -> Float[Array, "b h w c"]:
    """Returns the part of the velocity that the mask keeps: ``(1 - mask) * (noise - latents)``.

    The mask ranges from 0 (known) to 1 (repaint).
    """
    return (1 - mask) * velocity(latents, noise)


def with_known_region(
    velocity_fn: VelocityFn, motion: Float[Array, "b h w c"], mask: Float[Array, "b h w 1"]
) -> VelocityFn:
    """Returns `velocity_fn` with the path's own velocity where the mask is 0.

    `motion` is the `known_motion` of this mask. Values between 0 and 1 mix both velocities.
    """

    def mixed(
        x_t: Float[Array, "b h w c"], t: Float[Array, " b"], conditioning: Conditioning
    ) -> Float[Array, "b h w c"]:
        return mask * velocity_fn(x_t, t, conditioning) + motion

    return mixed


def latent_mask(mask: Float[np.ndarray, "hi wi"], factor: int) -> Float[np.ndarray, "h w 1"]:
    """Returns the mean of a pixel mask over each latent cell of ``factor x factor`` pixels."""
    height, width = mask.shape
    cells = mask.reshape(height // factor, factor, width // factor, factor)
    return cells.mean(axis=(1, 3), dtype=np.float32)[..., None]
