"""Fingerprints that distinguish one set of frozen weights from another, and are fast to compute.

A model works only with the encoders it was trained with, and the name of a directory does not show
whether its contents have changed. A fingerprint is the SHA-256 of every tensor's name, shape and
about `SAMPLES` of its values, evenly spaced and rounded to bfloat16. So it is the same for weights
in float32 and in bfloat16, and takes little time for networks of any size.

The scale and shift of an autoencoder's latents are in its config, not in its weights, but a model
depends on them just as much. They are recorded beside the fingerprint, under `SCALING`. Runs,
releases and prepared datasets of older versions do not have that entry, and are accepted without.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from pinxit.arrays import Autoencoder, TextEncoder

SAMPLES = 1024
SCALING = "vae_scaling"
"""The key of the autoencoder's scale and shift among the fingerprints."""


def fingerprint(params: Any) -> str:
    """Returns sixteen hexadecimal digits that identify the weights, or "" without weights."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        return ""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves, key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)}".encode())
        digest.update(_samples(leaf).tobytes())
    return digest.hexdigest()[:16]


def _samples(leaf: Any) -> np.ndarray:
    """Returns evenly spaced values of an array, rounded to bfloat16, as float32.

    NumPy selects those of arrays that the host can read as they are: as JAX programs, one for each
    shape, this took most of the time in which the shipped model was loaded.
    """
    if _in_host_memory(leaf):
        flat = np.ravel(np.asarray(leaf))
        samples = flat[:: max(1, flat.size // SAMPLES)].astype(np.float32)
        return samples.astype(ml_dtypes.bfloat16).astype(np.float32)
    on_device = jnp.ravel(jnp.asarray(leaf))
    samples = on_device[:: max(1, on_device.size // SAMPLES)]
    return np.asarray(samples.astype(jnp.bfloat16).astype(jnp.float32))


def _in_host_memory(leaf: Any) -> bool:
    """Returns whether NumPy can read an array of floats without copying all of it from a device."""
    if isinstance(leaf, jax.Array):
        here = leaf.is_fully_addressable and len(leaf.devices()) == 1
        if not here or next(iter(leaf.devices())).platform != "cpu":
            return False
    elif not isinstance(leaf, np.ndarray):
        return False
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def encoder_fingerprints(text_encoder: TextEncoder, autoencoder: Autoencoder) -> dict[str, str]:
    """Returns the fingerprints of both encoders under their names in checkpoints."""
    return {
        "text_encoder": fingerprint(text_encoder.params),
        "vae": fingerprint(autoencoder.params),
        SCALING: scaling_of(autoencoder),
    }


def scaling_of(autoencoder: Autoencoder) -> str:
    """Returns the scale and shift of an autoencoder's latents as text, or "" without weights."""
    if not jax.tree.leaves(autoencoder.params):
        return ""
    stats = autoencoder.stats
    return f"scale {float(stats.scale)!r}, shift {float(stats.shift)!r}"


def fingerprint_of_outputs(params: Any) -> str:
    """Returns the fingerprint and the dtypes of the weights, since outputs depend on both."""
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(params)}
    return f"{fingerprint(params)} {sorted(dtypes)}"
