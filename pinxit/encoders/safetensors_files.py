"""Tensors as safetensors files hold them: every header at once, the contents one by one.

A safetensors file is eight bytes for the header's length, the header (a JSON table of name, type,
shape and place) and the bytes of the tensors. The headers alone tell whether a file belongs to a
network, so nothing is read before everything fits, and no more than one tensor is held at a time:
a network of 20 GB goes to its devices through the memory of its largest tensor. Pickled weights are
never opened: unpickling a file runs whatever code it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError, read_json

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The types that parameters may have in a file, and NumPy's words for them."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of a file that is open but not read; `numpy.asarray` reads it."""

    name: str
    """In the file."""
    path: Path
    shape: tuple[int, ...]
    dtype: str
    """In NumPy's words where parameters may have it, else in the file's (``I64``)."""
    file: Any
    """The open file."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.file.get_tensor(self.name)
        return value if dtype is None else value.astype(dtype, copy=False)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`."""
    if not path.is_file():
        raise UsageError(f"{path.parent} has no {path.name}; it has {_names(path.parent)}")
    return read_json(path)


def open_tensors(directory: Path, weights: Sequence[str]) -> dict[str, StoredTensor]:
    """Every tensor of a directory, by name, from the first file of `weights` there.

    A file may be split into several that ``<file>.index.json`` lists. Where no file of `weights`
    is there, whole or split, the directory's only safetensors file or index is taken.
    """
    for name in weights:
        if (directory / name).is_file():
            return _open_file(directory / name)
        if (directory / f"{name}.index.json").is_file():
            return _open_sharded(directory / f"{name}.index.json")
    names = _names(directory)
    for opened, found in (
        (_open_sharded, [n for n in names if ".safetensors.index." in n and n.endswith(".json")]),
        (_open_file, [n for n in names if n.endswith(".safetensors")]),
    ):
        if len(found) == 1:
            return opened(directory / found[0])
        if found:
            raise UsageError(
                f"{directory} has none of {list(weights)} and more than one file that could stand "
                f"for it: {found}; rename or keep the one that is meant"
            )
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise UsageError(
            f"{directory} has only pickled weights ({', '.join(pickles)}), which can run code when "
            "opened; convert them to safetensors where you trust them: load them with transformers "
            "or diffusers, then save_pretrained(DIR, safe_serialization=True), and pass DIR"
        )
    raise UsageError(f"{directory} has none of {list(weights)}; it has {names}")


def _open_file(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    try:
        file: Any = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from error
    return {
        name: StoredTensor(
            name=name,
            path=path,
            shape=tuple(part.get_shape()),
            dtype=DTYPES.get(part.get_dtype(), part.get_dtype()),
            file=file,
        )
        for name, part in slices.items()
    }


def _open_sharded(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UsageError(f"{index} has no 'weight_map'")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UsageError(f"{index} names files outside its directory: {outside}")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise UsageError(f"{index} names files that are not there: {absent}")
    files = {name: _open_file(index.parent / name) for name in names}
    lacking = [f"{name} in {file}" for name, file in weight_map.items() if name not in files[file]]
    if lacking:
        raise UsageError(f"{index} lists tensors that its files lack: {', '.join(lacking)}")
    unlisted = {name: tensor for tensors in files.values() for name, tensor in tensors.items()}
    return unlisted | {name: files[file][name] for name, file in weight_map.items()}


def _names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []
