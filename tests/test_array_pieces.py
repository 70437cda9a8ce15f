"""Pieces of arrays in safetensors files: what several processes wrote is read back in any slice."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from pinxit.array_pieces import ArrayPiece, StoredArrays, whole_piece, write_pieces

KINDS = ("float32", "float16", "int32", "uint8", "bool", ml_dtypes.bfloat16)


def random_array(rng: np.random.Generator) -> np.ndarray:
    """Returns an array of random shape, which may be a number or empty, and of random dtype."""
    shape = rng.integers(0, 7, rng.integers(0, 5))
    return rng.integers(0, 200, shape).astype(KINDS[rng.integers(len(KINDS))])


def boxes(array: np.ndarray, name: str, rng: np.random.Generator) -> list[ArrayPiece]:
    """Returns an array cut at random places along each axis."""
    cuts = [
        np.unique([0, size, *rng.integers(0, size + 1, rng.integers(0, 3))]) for size in array.shape
    ]
    sides = [list(pairwise(cut)) or [(0, 0)] for cut in cuts]
    pieces = []
    for box in product(*sides):
        start = tuple(int(first) for first, _ in box)
        data = array[(*(slice(first, last) for first, last in box), ...)]
        pieces.append(ArrayPiece(name, array.shape, start, data))
    return pieces


def distributed(arrays: dict[str, np.ndarray], folder: Path, rng: Any) -> list[Path]:
    """Writes the pieces of some arrays in random order into the files of three processes."""
    pieces = [piece for name, array in arrays.items() for piece in boxes(array, name, rng)]
    owners = rng.integers(0, 3, len(pieces))
    paths = [folder / f"{process}.safetensors" for process in range(3)]
    for process, path in enumerate(paths):
        write_pieces(path, [p for p, owner in zip(pieces, owners, strict=True) if owner == process])
    return paths


def random_slice(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    """Returns a slice of each axis: all of it, or between two indices, which may be equal."""
    ends = [sorted(rng.integers(0, size + 1, 2).tolist()) for size in shape]
    return tuple(slice(None) if rng.random() < 0.3 else slice(*pair) for pair in ends)


@pytest.mark.parametrize("seed", range(40))
def test_any_slice_of_what_several_processes_wrote_is_numpys(seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    arrays = {f"blocks/{number}/kernel": random_array(rng) for number in range(4)}
    stored = StoredArrays(distributed(arrays, tmp_path, rng))
    assert stored.incomplete() == []
    assert stored.shapes == {name: array.shape for name, array in arrays.items()}
    for name, array in arrays.items():
        for index in (None, *(random_slice(array.shape, rng) for _ in range(10))):
            expected = array if index is None else array[(*index, ...)]
            result = stored.read(name, index)
            assert result.dtype == expected.dtype and result.shape == expected.shape
            assert result.tobytes() == expected.tobytes(), (name, index)


def test_other_libraries_read_the_files(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {"bias": rng.normal(size=3), "step": np.int32(7), "none": np.zeros((0, 4), "uint8")}
    cut = np.arange(12, dtype=np.float32).reshape(4, 3)
    half = ArrayPiece("kernel", cut.shape, (2, 0), cut[2:])
    path = tmp_path / "params.safetensors"
    write_pieces(path, [*(whole_piece(name, array) for name, array in arrays.items()), half])
    loaded = load_file(path)
    assert loaded.keys() == {*arrays, "kernel[2,0]"}
    np.testing.assert_array_equal(loaded["kernel[2,0]"], cut[2:])
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("lost", range(4))
def test_an_incomplete_set_is_noticed(lost: int, tmp_path: Path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    quarters = [
        ArrayPiece("kernel", array.shape, (i, j), array[i : i + 2, j : j + 3])
        for i in (0, 2)
        for j in (0, 3)
    ]
    paths = []
    for number, piece in enumerate(quarters):
        paths.append(tmp_path / f"{number}.safetensors")
        write_pieces(paths[-1], [piece, *([whole_piece("bias", array)] if number == lost else [])])
    assert StoredArrays(paths).incomplete() == []
    assert StoredArrays(paths[:lost] + paths[lost + 1 :]).incomplete() == ["kernel"]
    # as many elements, but not those of the whole array
    doubled = [*paths[:lost], paths[lost - 1], *paths[lost + 1 :]]
    assert StoredArrays(doubled).incomplete() == ["kernel"]
