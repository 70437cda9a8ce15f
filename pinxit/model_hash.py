"""Computes the hash of a model's parameters, by which the recipe in a picture names its model."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

DIGITS = 10
"""The number of hexadecimal digits of the hash."""


def hash_of_params(params: Any) -> str:
    """Returns the first ten hexadecimal digits of the SHA-256 of a tree of arrays and its paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).data)
    return digest.hexdigest()[:DIGITS]
