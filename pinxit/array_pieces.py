"""Arrays in safetensors files, possibly cut into pieces that several processes wrote.

Each process of a run holds pieces of the arrays of a state and writes them into a file of its own.
The file's metadata gives the shape of each whole array and the start of the piece in it, so that
any slice of any array can be read from the files of any number of processes. Any safetensors
library reads such a file; an array that is not cut has its own name in it.

A safetensors file consists of eight bytes for the header's length, the header in JSON, and the
bytes of the arrays. It is written here directly, because the library copies all arrays first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "uint32": "U32",
    "uint8": "U8",
    "bool": "BOOL",
}
"""The names of dtypes in safetensors files, by NumPy's names."""
DTYPES = {
    short: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name, short in NAMES.items()
}
ALIGNED = 64
"""The bytes of the arrays begin at a multiple of this."""


@dataclass(frozen=True)
class ArrayPiece:
    """A box of an array, or the whole array."""

    name: str
    """Name of the array."""
    shape: tuple[int, ...]
    """Shape of the whole array."""
    start: tuple[int, ...]
    """Index of the box's first element in the array."""
    data: np.ndarray
    """The elements of the box, on the host."""

    @property
    def key(self) -> str:
        """The name in the file: the array's, and the start if the array is cut."""
        if self.data.shape == self.shape:
            return self.name
        return f"{self.name}[{','.join(map(str, self.start))}]"


def whole_piece(name: str, array: Any) -> ArrayPiece:
    """Returns the piece that is a whole array."""
    data = np.asarray(array)
    return ArrayPiece(name, data.shape, (0,) * data.ndim, data)


def write_pieces(path: Path, pieces: Sequence[ArrayPiece]) -> str:
    """Writes a safetensors file and returns its SHA-256. The caller makes the write atomic."""
    header: dict[str, Any] = {}
    cuts = {p.key: [p.name, p.shape, p.start] for p in pieces if p.key != p.name}
    header["__metadata__"] = {"format": "np", "pieces": json.dumps(cuts)}
    offset = 0
    for piece in pieces:
        end = offset + piece.data.nbytes
        kind = NAMES[piece.data.dtype.name]
        shape = list(piece.data.shape)
        header[piece.key] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNED)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text, *map(_bytes_of, pieces)):
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _bytes_of(piece: ArrayPiece) -> Any:
    """Returns a view of a piece's bytes."""
    return np.ascontiguousarray(piece.data).reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class _Box:
    """A piece in a file."""

    path: Path
    offset: int
    dtype: np.dtype
    start: tuple[int, ...]
    shape: tuple[int, ...]


class StoredArrays:
    """The arrays in a set of files. Their bytes are read when they are asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Reads the headers. Raises ValueError or KeyError if a file is not one of this format."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        """The shapes of the whole arrays, by name."""
        self.dtypes: dict[str, np.dtype] = {}
        """The dtypes of the arrays, by name."""
        self._boxes: dict[str, list[_Box]] = {}
        for path in paths:
            self._add(path)

    def _add(self, path: Path) -> None:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        cuts = json.loads(header.pop("__metadata__", {}).get("pieces", "{}"))
        for key, entry in header.items():
            shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
            name, whole, start = cuts.get(key, (key, shape, (0,) * len(shape)))
            self.shapes[name], self.dtypes[name] = tuple(whole), dtype
            offset = 8 + size + entry["data_offsets"][0]
            box = _Box(path, offset, dtype, tuple(start), shape)
            self._boxes.setdefault(name, []).append(box)

    def incomplete(self) -> list[str]:
        """Returns the names of arrays whose pieces do not have all elements. A piece counts once,
        however many files have it."""
        different = {
            name: {(box.start, box.shape) for box in boxes} for name, boxes in self._boxes.items()
        }
        return [
            name
            for name, boxes in different.items()
            if sum(math.prod(shape) for _, shape in boxes) != math.prod(self.shapes[name])
        ]

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Reads an array, or the slice `index` of it (with step 1). The result is a new array."""
        shape = self.shapes[name]
        bounds = [
            part.indices(size)[:2]
            for part, size in zip(index or (slice(None),) * len(shape), shape, strict=True)
        ]
        result = np.empty([stop - start for start, stop in bounds], self.dtypes[name])
        for box in self._boxes[name]:
            _copy(box, bounds, result)
        return result


class ArraysInMemory(StoredArrays):
    """Arrays in memory, which are read like those in files."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the arrays by name."""
        super().__init__(())
        self._arrays = arrays
        self.shapes = {name: array.shape for name, array in arrays.items()}
        self.dtypes = {name: array.dtype for name, array in arrays.items()}

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Copies an array, or the slice `index` of it."""
        return np.array(self._arrays[name] if index is None else self._arrays[name][index])


def _copy(box: _Box, bounds: Sequence[tuple[int, int]], result: np.ndarray) -> None:
    """Copies the elements that a stored box and the wanted one have in common."""
    source, target = [], []
    for (first, last), start, size in zip(bounds, box.start, box.shape, strict=True):
        low, high = max(first, start), min(last, start + size)
        if low >= high:
            return
        source.append(slice(low - start, high - start))
        target.append(slice(low - first, high - first))
    if 0 in box.shape:
        return
    exact = [(start, start + size) for start, size in zip(box.start, box.shape, strict=True)]
    if exact == list(bounds):  # the box itself: read without a copy
        with box.path.open("rb") as file:
            file.seek(box.offset)
            flat = result.reshape(-1).view(np.uint8)
            if file.readinto(memoryview(flat)) != flat.nbytes:  # type: ignore[arg-type]
                raise OSError(f"{box.path} ended early")
        return
    stored = np.memmap(box.path, box.dtype, "r", box.offset, box.shape)
    result[tuple(target)] = stored[tuple(source)]
