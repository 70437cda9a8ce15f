"""Reading safetensors files: all headers first, then the tensors one by one.

A safetensors file consists of eight bytes for the header's length, the header (a JSON table of
name, type, shape and offsets) and the bytes of the tensors. The headers alone show whether a file
fits a network, so that is checked before any tensor is read. Only one tensor is in host memory at a
time: to load a network of 20 GB takes no more than the size of its largest tensor. Each one is
mapped alone, and its pages leave the process with it; the library's own mapping of the whole file
keeps them all. Pickled weights are never opened, since unpickling a file runs the code in it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from pinxit.config import UsageError, few, read_json
from pinxit.lfs_pointer import pointer_problem

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The types that parameters may have in a file, with NumPy's names for them."""
OTHER_DTYPES = {"BOOL": "bool"}
OTHER_DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
OTHER_DTYPES |= {f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)}
"""The types that only other tensors have, such as counters."""

ORIGINAL_NAMES = re.compile(
    r"(first_stage_model|cond_stage_model|conditioner|model\.diffusion_model)\."
    r"|(encoder|decoder)\.(down|up|mid)\.(\d+\.(block|attn|downsample|upsample)|block_|attn_)"
)
"""Names of tensors in whole checkpoints of Stable Diffusion, and in its autoencoder alone."""
ORIGINAL_DC_AE = re.compile(r"(encoder|decoder)\.(project_in|project_out|stages)\.")
"""Names of tensors in the authors' files of deep compression autoencoders."""


class OpenFile:
    """An open safetensors file, which stays the same if another one takes its place."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        length = int.from_bytes(self.mapped(0, 8), "little")
        header = json.loads(bytes(self.mapped(8, length)))
        self.start = 8 + length
        """Position of the first tensor's first byte."""
        self.metadata: dict[str, str] | None = header.pop("__metadata__", None)
        """The texts that the file's writer added."""
        self.header: dict[str, Any] = header
        """Type, shape and offsets of each tensor, by name."""

    def mapped(self, start: int, size: int) -> memoryview:
        """Returns `size` bytes from `start` on, unread. They are mapped while they are in use."""
        if size == 0:
            return memoryview(b"")
        page = start - start % mmap.ALLOCATIONGRANULARITY
        length = start + size - page
        data = mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=page)
        return memoryview(data)[start - page :]


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of an open file that is not read yet; `numpy.asarray` reads it."""

    name: str
    """The tensor's name in the file."""
    path: Path
    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of the type if parameters may have it, else the file's (``I64``)."""
    file: OpenFile
    offset: int
    """Position of the tensor's first byte in the file."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        kind = jnp.dtype(OTHER_DTYPES.get(self.dtype, self.dtype))
        count = math.prod(self.shape)
        data = self.file.mapped(self.offset, count * kind.itemsize)
        value = np.frombuffer(data, kind, count).reshape(self.shape)
        if dtype is not None:
            value = value.astype(dtype, copy=False)
        return value.copy() if copy else value


def read_config(path: Path) -> dict[str, Any]:
    """Returns the JSON object in `path`, which is usually a config.json."""
    if not path.is_file():
        hint = ""
        files = [name for name in _names(path.parent) if name.endswith(".safetensors")]
        tensors = open_safetensors(path.parent / files[0]) if len(files) == 1 else {}
        if layout := original_layout(tensors):
            hint = f". In {files[0]}, {layout}"
        raise UsageError(f"{path.parent} has no {path.name}; it has {_listed(path.parent)}{hint}")
    return read_json(path)


def refused_file(path: Path) -> str:
    """Returns why a file cannot be used where a directory of weights is expected."""
    if path.suffix in PICKLES:
        return (
            f"{path} is a file of pickled weights, which can run code when opened. If you trust "
            "it, convert it with diffusers or transformers (from_single_file or from_pretrained, "
            "then save_pretrained(DIR, safe_serialization=True)), and pass DIR"
        )
    if problem := pointer_problem(path):
        return problem
    if path.suffix == ".safetensors" and (layout := original_layout(open_safetensors(path))):
        return f"{path}: {layout}"
    return f"{path} is a file; pass the directory that contains it and config.json"


def original_layout(names: Iterable[str]) -> str | None:
    """Returns what to do if tensors have the names of the authors' own repository (of Stable
    Diffusion or of DC-AE), or None if they do not."""
    names = list(names)
    if any(ORIGINAL_DC_AE.match(name) for name in names):
        return (
            "these are weights in DC-AE's original layout, but Pinxit reads that of diffusers. "
            "Pass a repository whose name ends in -diffusers, such as "
            "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers"
        )
    if not any(ORIGINAL_NAMES.match(name) for name in names):
        return None
    return (
        "these are weights in the original Stable Diffusion (LDM) layout, but Pinxit reads that of "
        "diffusers. Convert them there: StableDiffusionPipeline.from_single_file(FILE), or "
        "AutoencoderKL.from_single_file(FILE), and then .save_pretrained(DIR). Or pass a directory "
        "or repository in diffusers' layout, such as stabilityai/sd-vae-ft-mse"
    )


def open_tensors(directory: Path, weights: Sequence[str]) -> dict[str, StoredTensor]:
    """Opens the tensors of a directory, by name, from the first file of `weights` that exists.

    A file may be split into several, which ``<file>.index.json`` lists. If no file of `weights`
    exists, whole or split, the directory's only index or safetensors file is opened.
    """
    for name in weights:
        if (directory / name).is_file():
            return open_safetensors(directory / name)
        if (directory / f"{name}.index.json").is_file():
            return _open_sharded(directory / f"{name}.index.json")
    names = _names(directory)
    for open_one, matches in (
        (_open_sharded, [n for n in names if ".safetensors.index." in n and n.endswith(".json")]),
        (open_safetensors, [n for n in names if n.endswith(".safetensors")]),
    ):
        if len(matches) == 1:
            return open_one(directory / matches[0])
        if matches:
            raise UsageError(
                f"{directory} has none of {', '.join(weights)}, but more than one file that "
                f"could be used instead: {', '.join(matches)}; rename the right one, or remove "
                "the others"
            )
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise UsageError(
            f"{directory} has only pickled weights ({', '.join(pickles)}), which can run code when "
            "opened. If you trust them, convert them to safetensors: load them with transformers "
            "or diffusers, then save_pretrained(DIR, safe_serialization=True), and pass DIR"
        )
    raise UsageError(f"{directory} has none of {', '.join(weights)}; it has {_listed(directory)}")


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Opens the tensors of one safetensors file, by name."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    try:
        with safe_open(path, framework="numpy"):  # checks the header and the file's length
            file = OpenFile(path)
    except SafetensorError as error:
        if problem := pointer_problem(path):
            raise UsageError(problem) from error
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from error
    return {
        name: StoredTensor(
            name=name,
            path=path,
            shape=tuple(about["shape"]),
            dtype=DTYPES.get(about["dtype"], about["dtype"]),
            file=file,
            offset=file.start + about["data_offsets"][0],
        )
        for name, about in file.header.items()
    }


def _open_sharded(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UsageError(f"{index} has no 'weight_map'")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UsageError(f"{index} lists files outside its directory: {few(outside)}")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise UsageError(f"{index} lists files that do not exist: {few(absent)}")
    files = {name: open_safetensors(index.parent / name) for name in names}
    missing = [f"{name} in {file}" for name, file in weight_map.items() if name not in files[file]]
    if missing:
        raise UsageError(f"{index} lists tensors that its files lack: {few(missing)}")
    unlisted = {name: tensor for tensors in files.values() for name, tensor in tensors.items()}
    return unlisted | {name: files[file][name] for name, file in weight_map.items()}


def _listed(directory: Path) -> str:
    """Returns the names of the files in a folder, for a message."""
    return few(_names(directory), limit=12) or "nothing"


def _names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []
