"""Processing of large grids in overlapping tiles, which are blended so that no seam is visible.

A convolutional network needs memory in proportion to its grid. If a large grid is cut into tiles of
one size, one compiled program processes them one by one, and needs memory for one tile and the
result. Tiles are spread evenly and share at least `overlap` cells with their neighbours. Along each
axis a tile's weight rises linearly from 0 to 1 over the middle half of the cells that it shares. In
the outer quarter the weight is 0, since the tile's border distorts its result there. Where three
tiles meet, as they do if they share more than a third of their cells, the weights are divided by
their sum. At every point

    sum_i weight_i = 1,    result = sum_i weight_i * network(tile_i).

The result still differs from that of the whole grid, because normalisation layers and attention see
one tile instead of the whole grid.
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
    """Applies `network` to `grid`, one image and one tile at a time; blends and returns float32.

    `tile` and `overlap` are in cells. A cell is `inner` points of the grid and `outer` points of
    the result along each side. A grid smaller than a tile is processed as one tile.
    """
    if not (tile >= 1 and 0 <= overlap <= tile // 2):
        raise ValueError(
            f"tile is {tile} and overlap is {overlap} cells; tile must be at least 1, and overlap "
            "between 0 and half of tile"
        )
    height, width = (points // inner for points in grid.shape[1:3])
    rows, columns = (tile_starts(cells, tile, overlap=overlap) for cells in (height, width))
    size = (min(tile, height), min(tile, width))
    origins = jnp.asarray(list(itertools.product(rows, columns)))
    down = tile_weights(rows, size[0], points=outer)
    across = tile_weights(columns, size[1], points=outer)
    masks = [jnp.asarray(x) for x in (down, across)]
    indices = jnp.asarray(list(itertools.product(range(len(rows)), range(len(columns)))))
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
        return jax.lax.scan(add, empty, (origins, indices))[0][0]

    return jax.lax.map(whole, grid)


def tile_starts(cells: int, tile: int, *, overlap: int) -> list[int]:
    """Returns the first cell of each tile along an axis of `cells` cells.

    The tiles cover the axis, are evenly spread and share at least `overlap` cells.
    """
    if cells <= tile:
        return [0]
    count = math.ceil((cells - tile) / max(tile - overlap, 1)) + 1
    return [round(i * (cells - tile) / (count - 1)) for i in range(count)]


def tile_weights(starts: list[int], tile: int, *, points: int) -> Float[np.ndarray, "n p"]:
    """Returns each tile's weights along one axis, at `points` points per cell.

    At every point of the axis the weights of all tiles sum to 1.
    """
    weights = np.ones((len(starts), tile * points), np.float32)
    for i, (before, after) in enumerate(itertools.pairwise(starts)):
        shared = (before + tile - after) * points
        ramp = (np.arange(shared) + 0.5 - shared / 4) / max(shared / 2, 1)
        ramp = np.clip(ramp, 0, 1).astype(np.float32)
        weights[i + 1, :shared] *= ramp
        weights[i, tile * points - shared :] *= 1 - ramp
    spans = [slice(start * points, (start + tile) * points) for start in starts]
    total = np.zeros(spans[-1].stop, np.float32)  # exactly 1 where only two tiles meet
    for span, weight in zip(spans, weights, strict=True):
        total[span] += weight
    for span, weight in zip(spans, weights, strict=True):
        weight /= total[span]
    return weights
