"""Large grids in overlapping tiles, blended so that no seam shows.

A convolutional network on a large grid needs memory for the whole of it. Cut into tiles of one
size, the grid goes through one compiled program tile by tile, and memory is that of a tile plus the
result. Tiles are spread evenly and share at least `overlap` cells with their neighbours. Along each
axis a tile's weight rises linearly from 0 to 1 over the middle half of what it shares; the outer
quarters, where its own border spoils it, are left to the neighbour. At every point

    sum_i weight_i = 1,    result = sum_i weight_i * network(tile_i).

What remains different from the whole grid is what the network takes from all of it: means of
normalisation layers, attention.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TileFn = Callable[[Float[Array, "1 h w c"]], Float[Array, "1 ho wo co"]]


def map_tiles(
    network: TileFn,
    grid: Float[Array, "b h w c"],
    *,
    tile: int,
    overlap: int,
    inner: int = 1,
    outer: int = 1,
) -> Float[Array, "b ho wo co"]:
    """`network` of `grid`, one image and one tile at a time, in float32.

    `tile` and `overlap` are in cells; a cell is `inner` points of the grid and `outer` of the
    result along each side. A grid smaller than a tile is a tile.
    """
    if not (tile >= 1 and 0 <= overlap <= tile // 2):
        raise ValueError(
            f"tile is {tile} and overlap {overlap} cells; a tile is at least 1, the overlap 0 to "
            "half of it"
        )
    height, width = (points // inner for points in grid.shape[1:3])
    rows, columns = (tile_starts(cells, tile, overlap=overlap) for cells in (height, width))
    size = (min(tile, height), min(tile, width))
    places = jnp.asarray(list(itertools.product(rows, columns)))
    down = tile_weights(rows, size[0], points=outer)
    across = tile_weights(columns, size[1], points=outer)
    masks = [jnp.asarray(x) for x in (down, across)]
    which = jnp.asarray(list(itertools.product(range(len(rows)), range(len(columns)))))
    shape = (1, size[0] * inner, size[1] * inner, grid.shape[-1])
    tiled = jax.eval_shape(network, jax.ShapeDtypeStruct(shape, grid.dtype))

    def whole(image: Float[Array, "h w c"]) -> Float[Array, "ho wo co"]:
        def add(result: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
            (y, x), (i, j) = step
            start = (0, y * inner, x * inner, 0)
            part = network(jax.lax.dynamic_slice(image[None], start, shape)).astype(jnp.float32)
            part = part * masks[0][i][None, :, None, None] * masks[1][j][None, None, :, None]
            at = (0, y * outer, x * outer, 0)
            before = jax.lax.dynamic_slice(result, at, part.shape)
            return jax.lax.dynamic_update_slice(result, before + part, at), None

        empty = jnp.zeros((1, height * outer, width * outer, tiled.shape[-1]), jnp.float32)
        return jax.lax.scan(add, empty, (places, which))[0][0]

    return jax.lax.map(whole, grid)


def tile_starts(cells: int, tile: int, *, overlap: int) -> list[int]:
    """First cells of tiles that cover `cells`, evenly spread, sharing at least `overlap`."""
    if cells <= tile:
        return [0]
    count = math.ceil((cells - tile) / max(tile - overlap, 1)) + 1
    return [round(i * (cells - tile) / (count - 1)) for i in range(count)]


def tile_weights(starts: list[int], tile: int, *, points: int) -> Float[np.ndarray, "n p"]:
    """Each tile's weight along one axis, at `points` points per cell; they sum to 1 everywhere."""
    weights = np.ones((len(starts), tile * points), np.float32)
    for i, (before, after) in enumerate(itertools.pairwise(starts)):
        shared = (before + tile - after) * points
        ramp = (np.arange(shared) + 0.5 - shared / 4) / max(shared / 2, 1)
        ramp = np.clip(ramp, 0, 1).astype(np.float32)
        weights[i + 1, :shared] *= ramp
        weights[i, tile * points - shared :] *= 1 - ramp
    return weights
