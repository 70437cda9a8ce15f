"""Writes safetensors files one tensor at a time, and splits large ones as Hugging Face does.

A tensor is anything with a `shape` and a `dtype` that `numpy.asarray` reads, such as an array or a
`StoredTensor` of another file. Only one is in memory at a time, so that a text encoder of 20 GB can
be copied on a small machine. Equal tensors and metadata give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import jax.numpy as jnp
import numpy as np

from pinxit.config import UsageError
from pinxit.encoders.safetensors_files import DTYPES

DTYPES_TO_WRITE = ("float32", "float16", "bfloat16")
"""The dtypes that an exported file may have."""
WHOLE_NUMBERS = "int64"
"""The dtype of tensors that count, such as the batches of batch normalisation."""
LARGEST_FILE = 5 * 10**9
"""The size in bytes above which a file is split; Hugging Face's tools split at the same size."""
HASH = "modelspec.hash_sha256"
"""The key of the metadata for the SHA-256 of the tensors' bytes, in the order of the file."""
ALIGNMENT = 8
"""The header is padded with blanks to a multiple of this number of bytes."""


class Tensor(Protocol):
    """A tensor that may not have been read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class Converted:
    """A tensor in another floating-point type, which is converted when it is read."""

    tensor: Any
    dtype: str
    name: str = "a tensor"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = np.asarray(self.tensor)
        with np.errstate(over="ignore"):  # reported below
            result = value.astype(jnp.dtype(self.dtype))
        if not np.isfinite(result).all() and np.isfinite(value).all():
            problem = f"too small a range for {self.name}"
            raise UsageError("dtype", self.dtype, problem=problem, valid="float32 or bfloat16")
        return result if dtype is None else result.astype(dtype)


def converted(tensors: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Returns the tensors in `dtype`. With "float32", narrower types stay as they are, since a
    wider copy would hold the same numbers. Whole numbers are never converted."""
    keep = ("float32", "float16", "bfloat16") if dtype == "float32" else (dtype,)
    keep += (WHOLE_NUMBERS,)
    return {
        name: tensor if str(tensor.dtype) in keep else Converted(tensor, dtype, name)
        for name, tensor in tensors.items()
    }


def size_of(tensor: Any) -> int:
    """Returns the number of bytes of a tensor."""
    return math.prod(tensor.shape) * jnp.dtype(str(tensor.dtype)).itemsize


def write_file(
    path: Path,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str],
    *,
    wrote: Callable[[int], object] = lambda size: None,
) -> None:
    """Writes one safetensors file. `wrote` receives the size of each tensor when it is written.

    If the metadata has the key `HASH`, its value becomes the SHA-256 of the tensors' bytes.
    """
    order = sorted(tensors, key=lambda name: (-jnp.dtype(str(tensors[name].dtype)).itemsize, name))
    about = dict(metadata)
    if HASH in about:
        about[HASH] = f"0x{'0' * 64}"
    with path.open("wb") as file:
        file.write(_header(tensors, order, about))
        digest = _write_tensors(file, tensors, order, wrote)
        if HASH in about:
            file.seek(0)
            file.write(_header(tensors, order, about | {HASH: f"0x{digest}"}))


def _write_tensors(
    file: BinaryIO, tensors: Mapping[str, Any], order: Sequence[str], wrote: Callable[[int], object]
) -> str:
    """Writes the bytes of the tensors, and returns their SHA-256."""
    digest = hashlib.sha256()
    for name in order:
        value = np.ascontiguousarray(np.asarray(tensors[name]))
        content = value.reshape(-1).view(np.uint8).data
        digest.update(content)
        file.write(content)
        wrote(value.nbytes)
    return digest.hexdigest()


def _header(tensors: Mapping[str, Any], order: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    """Returns the header of a file, with its length before it."""
    names = {numpy: stored for stored, numpy in DTYPES.items()} | {WHOLE_NUMBERS: "I64"}
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    begin = 0
    for name in order:
        tensor, end = tensors[name], begin + size_of(tensors[name])
        table[name] = {
            "dtype": names[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_tensors(
    folder: Path,
    name: str,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str],
    *,
    wrote: Callable[[int], object] = lambda size: None,
) -> None:
    """Writes tensors as the file `name`, or as several files with an index if they are larger than
    `LARGEST_FILE`: ``model-00001-of-00002.safetensors`` and ``model.safetensors.index.json``.

    Of several files, each has the SHA-256 of its own tensors.
    """
    groups = _groups(tensors, LARGEST_FILE)
    if len(groups) == 1:
        write_file(folder / name, tensors, metadata, wrote=wrote)
        return
    stem, _, suffix = name.rpartition(".")
    weight_map = {}
    for i, group in enumerate(groups, start=1):
        file = f"{stem}-{i:05d}-of-{len(groups):05d}.{suffix}"
        write_file(folder / file, {n: tensors[n] for n in group}, metadata, wrote=wrote)
        weight_map |= dict.fromkeys(group, file)
    total = sum(size_of(tensor) for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{name}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _groups(tensors: Mapping[str, Any], largest: int) -> list[list[str]]:
    """Divides the names into groups of at most `largest` bytes, in order."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in tensors:
        bytes_ = size_of(tensors[name])
        if groups[-1] and size + bytes_ > largest:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += bytes_
    return groups
