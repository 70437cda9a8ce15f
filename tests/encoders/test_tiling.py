"""Tiles: they cover, their weights sum to one, and a local network does not notice them."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.encoders.tiling import map_tiles, tile_starts, tile_weights

GRID = np.random.default_rng(0).standard_normal((2, 22, 13, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("cells", "tile", "overlap"), [(22, 8, 2), (22, 8, 4), (9, 8, 0), (5, 8, 2)]
)
def test_tiles_cover_and_weights_sum_to_one(cells, tile, overlap):
    starts = tile_starts(cells, tile, overlap=overlap)
    tile = min(tile, cells)
    assert starts[0] == 0
    assert starts[-1] + tile == cells
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    total = np.zeros(cells * 3)
    for start, weight in zip(starts, tile_weights(starts, tile, points=3), strict=True):
        assert (weight >= 0).all()
        total[start * 3 : (start + tile) * 3] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("tile", [8, 9, 12, 31, 96])
def test_weights_sum_to_one_at_every_overlap_that_is_allowed(tile):
    for cells, overlap in itertools.product(range(tile + 1, 3 * tile, 3), range(tile // 2 + 1)):
        starts = tile_starts(cells, tile, overlap=overlap)
        total = np.zeros(cells * 2)
        for start, weight in zip(starts, tile_weights(starts, tile, points=2), strict=True):
            assert (weight >= 0).all()
            total[start * 2 : (start + tile) * 2] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6, err_msg=f"{cells} cells, {overlap}")


def test_a_constant_stays_constant_where_three_tiles_meet():
    """145 cells in tiles of 96 that share at least 48: the sum was 2.5 % off in a band."""
    grid = jnp.ones((1, 145, 1, 1))
    blended = map_tiles(lambda x: x, grid, tile=96, overlap=48)
    np.testing.assert_allclose(blended, 1, atol=1e-6)


def test_where_two_tiles_meet_no_weight_is_changed_by_the_division():
    """The default overlap, a quarter of a tile, keeps the bytes that it always had."""
    for starts, tile in (([0, 72, 144], 96), ([0, 64], 96)):
        shared = (starts[0] + tile - starts[1]) * 8
        ramp = np.clip((np.arange(shared) + 0.5 - shared / 4) / (shared / 2), 0, 1)
        first = tile_weights(starts, tile, points=8)[0]
        np.testing.assert_array_equal(first[-shared:], 1 - ramp.astype(np.float32))


def test_the_borders_of_a_tile_have_no_weight():
    first, second = tile_weights([0, 12], 20, points=1)
    np.testing.assert_array_equal(first[:14], 1)
    np.testing.assert_allclose(first[12:], 1 - second[:8])
    np.testing.assert_array_equal(second[:2], 0)
    np.testing.assert_allclose(second[2:6], [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize(("tile", "overlap"), [(8, 4), (9, 4), (16, 8), (40, 4)])
def test_a_local_network_does_not_notice(tile, overlap):
    """A 3x3 convolution spoils one cell at the border; that cell has no weight."""
    kernel = np.random.default_rng(1).standard_normal((3, 3, 3, 5)).astype(np.float32)

    def network(x):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

    tiled = jax.jit(lambda x: map_tiles(network, x, tile=tile, overlap=overlap, outer=2))
    assert tiled(GRID).shape == (2, 44, 26, 5)
    np.testing.assert_allclose(tiled(GRID), network(jnp.asarray(GRID)), atol=2e-5)


def test_a_grid_may_be_finer_than_the_result():
    def network(x):
        return x.reshape(1, x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).mean((2, 4))

    grid = jnp.asarray(GRID[:, :, :12])
    tiled = map_tiles(network, grid, tile=4, overlap=1, inner=2)
    expected = grid.reshape(2, 11, 2, 6, 2, 3).mean((2, 4))
    np.testing.assert_allclose(tiled, expected, atol=1e-6)


def test_the_network_is_traced_for_one_tile(monkeypatch):
    shapes = []

    def network(x):
        shapes.append(x.shape)
        return x

    jax.jit(lambda x: map_tiles(network, x, tile=4, overlap=2))(GRID)
    assert set(shapes) == {(1, 4, 4, 3)}
    assert len(shapes) <= 3


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (8, 5), (8, -1)])
def test_impossible_tiles_are_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"tile is {tile} and overlap is {overlap} cells"):
        map_tiles(lambda x: x, jnp.asarray(GRID), tile=tile, overlap=overlap)
