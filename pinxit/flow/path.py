"""The straight path between data and noise, and its velocity.

``x_t = (1 - t) * latents + t * noise`` with ``t = 0`` at the data and ``t = 1`` at the noise, hence
``velocity = d x_t / d t = noise - latents`` (Liu et al. 2022, arXiv:2209.03003). From `x_t` and any
one of latents, noise and velocity, the other two follow::

    latents = x_t - t * velocity          noise = x_t + (1 - t) * velocity
"""

from __future__ import annotations

from jaxtyping import Array, Float


def _over(t: Float[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    return t[:, None, None, None]


def interpolate(
    latents: Float[Array, "b h w c"], noise: Float[Array, "b h w c"], t: Float[Array, " b"]
) -> Float[Array, "b h w c"]:
    """Returns the point `x_t` of the path."""
    return (1 - _over(t)) * latents + _over(t) * noise


def velocity(
    latents: Float[Array, "b h w c"], noise: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """Returns the path's constant velocity, which points from data to noise."""
    return noise - latents
