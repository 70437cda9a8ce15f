"""Transfers arrays between the memory of a host and the devices of all hosts.

With one process these are `jax.device_put` and `np.array`. With several, each process holds only
part of the arrays. Process 0 gathers and distributes them leaf by leaf, so that it alone reads and
writes files and the hosts need no shared folder.
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
    """Places the arrays of `tree`, which every process has in full, with these shardings."""
    if not several():
        return jax.device_put(tree, shardings)

    def put(leaf: Any, sharding: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)


def encoding_of(autoencoder: Autoencoder) -> Callable[[Any, Any], jax.Array]:
    """Returns the function from (parameters, uint8 images) to latents that is compiled."""
    return lambda params, images: autoencoder.encode(params, to_pixels(images))


def image_encoder(autoencoder: Autoencoder, mesh: Mesh) -> Callable[[np.ndarray], jax.Array]:
    """Returns a function from uint8 images to latents, which it returns before they are computed.

    The images are sharded over the devices of `mesh` if their number divides.
    """
    weights = jax.device_put(autoencoder.params, replicated(mesh))

    run = jax.jit(encoding_of(autoencoder))

    def encode(images: np.ndarray) -> jax.Array:
        shared = len(images) % mesh.size == 0
        where = batch_sharding(mesh) if shared else replicated(mesh)
        return run(weights, jax.device_put(images, where))

    return encode


def place_batch(
    raw: dict[str, np.ndarray], mesh: Mesh, rows: Int[np.ndarray, " b"], batch_size: int
) -> dict[str, jax.Array]:
    """Places a batch, of which this process has `rows`, on the devices that compute them."""
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
    """Copies the arrays into the host's memory on process 0, and returns None on the others.

    All processes must call it.
    """
    if not several():
        return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
    host = jax.tree.map(_fetched, tree)
    return host if is_first() else None


def spread(tree: Any, like: Any, shardings: Any) -> Any:
    """Distributes process 0's `tree` to all devices, as the inverse of `fetch`.

    The other processes' `tree` is ignored. `like` has the shapes and dtypes.
    """
    if not several():
        return jax.device_put(tree, shardings)
    leaves, treedef = jax.tree.flatten(like)
    values = jax.tree.leaves(tree) if is_first() else [None] * len(leaves)
    targets = treedef.flatten_up_to(shardings)
    triples = zip(values, leaves, targets, strict=True)
    return treedef.unflatten([_spread(value, leaf, to) for value, leaf, to in triples])


def _fetched(leaf: jax.Array) -> np.ndarray | None:
    """Returns the whole leaf on process 0, else None."""
    sharding = leaf.sharding
    if not sharding.is_fully_replicated:
        assert isinstance(sharding, NamedSharding)
        leaf = _gather(sharding.mesh)(leaf)
    return np.array(leaf.addressable_data(0), copy=True) if is_first() else None


@cache
def _gather(mesh: Any) -> Any:
    """Returns a function that replicates an array on all devices."""
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _spread(value: Any, like: Any, sharding: Any) -> jax.Array:
    """Broadcasts one leaf as bits, because a sum of floats would lose the sign of a zero."""
    dtype = np.dtype(like.dtype)
    whole = np.zeros(like.shape, dtype) if value is None else np.asarray(value, dtype)
    bits = whole.reshape(-1).view(f"u{dtype.itemsize}")
    sent = multihost_utils.broadcast_one_to_all(bits)
    whole = np.asarray(sent).view(dtype).reshape(like.shape)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
