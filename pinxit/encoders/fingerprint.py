"""What tells one set of frozen weights from another, at a glance.

A model is of use only with the encoders it was trained with, and names and directories do not say
whether their content is still the same. A fingerprint is the SHA-256 of every tensor's name, shape
and up to `SAMPLES` of its values, evenly spaced and rounded to bfloat16: the same for weights held
in float32 and in bfloat16, and read in a moment whatever the size.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.arrays import Autoencoder, TextEncoder

SAMPLES = 1024


def fingerprint(params: Any) -> str:
    """Returns sixteen hexadecimal digits that change when the weights do; "" without weights."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        return ""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves, key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)}".encode())
        flat = jnp.ravel(jnp.asarray(leaf))
        samples = flat[:: max(1, flat.size // SAMPLES)]
        digest.update(np.asarray(samples.astype(jnp.bfloat16).astype(jnp.float32)).tobytes())
    return digest.hexdigest()[:16]


def encoder_fingerprints(text_encoder: TextEncoder, autoencoder: Autoencoder) -> dict[str, str]:
    """Returns the fingerprints of a model's two encoders, by their names in checkpoints."""
    return {
        "text_encoder": fingerprint(text_encoder.params),
        "vae": fingerprint(autoencoder.params),
    }


def fingerprint_of_outputs(params: Any) -> str:
    """Returns `fingerprint` with the weights' types: outputs differ where either does."""
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(params)}
    return f"{fingerprint(params)} {sorted(dtypes)}"
