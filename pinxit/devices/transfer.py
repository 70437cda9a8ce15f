"""Arrays between one host's memory and the devices of all.

With one process these are `jax.device_put` and `np.array`. With several, nobody holds more than a
part: process 0 gathers a tree leaf by leaf and spreads it leaf by leaf, so that it alone reads and
writes files, and no folder needs to be shared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from pinxit.arrays import Autoencoder, to_pixels
from pinxit.devices.mesh import batch_sharding, replicated
from pinxit.devices.processes import is_first, several


def place(tree: Any, shardings: Any) -> Any:
    """The arrays of `tree`, of which each process has all, where the shardings say."""
    if not several():
        return jax.device_put(tree, shardings)

    def put(leaf: Any, sharding: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)


def image_encoder(autoencoder: Autoencoder, mesh: Mesh) -> Callable[[np.ndarray], jax.Array]:
    """From images of bytes to latents, which are not waited for.

    The devices of `mesh` share the images, if these divide by their number.
    """
    weights = jax.device_put(autoencoder.params, replicated(mesh))

    @jax.jit
    def run(params: Any, images: Any) -> Any:
        return autoencoder.encode(params, to_pixels(images))

    def encode(images: np.ndarray) -> jax.Array:
        shared = len(images) % mesh.size == 0
        where = batch_sharding(mesh) if shared else replicated(mesh)
        return run(weights, jax.device_put(images, where))

    return encode


def place_batch(
    raw: dict[str, np.ndarray], mesh: Mesh, rows: Int[np.ndarray, " b"], batch_size: int
) -> dict[str, jax.Array]:
    """A batch, of which this process has these rows, on the devices that compute them."""
    sharding = batch_sharding(mesh)
    if not several():
        return jax.device_put(raw, sharding)

    def put(part: np.ndarray) -> jax.Array:
        def of(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first, last, _ = index[0].indices(batch_size)
            start = int(np.searchsorted(rows, first))
            return part[(slice(start, start + last - first), *index[1:])]

        return jax.make_array_from_callback((batch_size, *part.shape[1:]), sharding, of)

    return {name: put(array) for name, array in raw.items()}


def fetch(tree: Any) -> Any:
    """Copies of the arrays in the host's memory, on process 0; None on the others, which must call
    it too."""
    if not several():
        return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
    host = jax.tree.map(_fetched, tree)
    return host if is_first() else None


def spread(tree: Any, like: Any, shardings: Any) -> Any:
    """The inverse of `fetch`: `tree` is process 0's and ignored elsewhere; `like` has the shapes
    and types."""
    if not several():
        return jax.device_put(tree, shardings)
    leaves, treedef = jax.tree.flatten(like)
    given = jax.tree.leaves(tree) if is_first() else [None] * len(leaves)
    where = treedef.flatten_up_to(shardings)
    triples = zip(given, leaves, where, strict=True)
    return treedef.unflatten([_spread(value, leaf, to) for value, leaf, to in triples])


def _fetched(leaf: jax.Array) -> np.ndarray | None:
    """The whole leaf, on process 0."""
    sharding = leaf.sharding
    if not sharding.is_fully_replicated:
        assert isinstance(sharding, NamedSharding)
        leaf = _gather(sharding.mesh)(leaf)
    return np.array(leaf.addressable_data(0), copy=True) if is_first() else None


@cache
def _gather(mesh: Any) -> Any:
    """Copies an array to all devices."""
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _spread(value: Any, like: Any, sharding: Any) -> jax.Array:
    """One leaf, sent as the bits it has (a sum of floats would lose the sign of a zero)."""
    dtype = np.dtype(like.dtype)
    whole = np.zeros(like.shape, dtype) if value is None else np.asarray(value, dtype)
    bits = whole.reshape(-1).view(f"u{dtype.itemsize}")
    sent = multihost_utils.broadcast_one_to_all(bits)
    whole = np.asarray(sent).view(dtype).reshape(like.shape)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
