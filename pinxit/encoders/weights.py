"""Reads and writes Hugging Face's weight directories, as nested dicts of arrays.

A network is described by the tree of its shapes, whose keys form Hugging Face's tensor names:
``{"conv_in": {"kernel": (3, 3, 3, 64), "bias": (64,)}}`` is ``conv_in.weight``, ``conv_in.bias``.
The last key determines the layout of a tensor and its initial value:

============= ============================ ===================== =======================
last key      ours                         Hugging Face's        initial value
============= ============================ ===================== =======================
``kernel``    (height, width, in, out)     (out, in, h, w)       normal, variance 1 / (fan in)
``kernel``    (in, out)                    (out, in)             normal, variance 1 / (fan in)
``scale``     (width,)                     ``weight``, the same  one
``embedding`` (rows, width)                ``weight``, the same  normal, deviation 0.02
``bias``      (width,)                     ``bias``, the same    zero
``running_*`` (width,)                     the same              zero (mean), one (var)
============= ============================ ===================== =======================

Only safetensors files are read (`safetensors_files.py`), one tensor at a time: each is converted,
checked for values that are not finite, and placed on its devices before the next one is read. All
problems with names, shapes and types are reported in one `ValueError` before any tensor is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pinxit.config import UsageError, few
from pinxit.encoders.safetensors_files import (
    DTYPES,
    StoredTensor,
    open_tensors,
    original_layout,
    read_config,
    refused_file,
)
from pinxit.files import whole_set

__all__ = [
    *("ASSETS", "PARAMETER_DTYPES", "Sharding", "StoredTensor", "Tree"),
    *("abstract_params", "bundled", "fetched", "flatten", "from_tensors", "init_from_shapes"),
    *("load_directory", "read_config", "refuse_float16", "resolve", "save_directory"),
    *("tensor_name", "to_tensors", "UnreadParameter", "unflatten", "unread_params"),
]

ASSETS = Path(__file__).resolve().parents[1] / "assets"
"""The folder of the small networks that come with Pinxit."""

Tree = dict[str, Any]
"""A nested dict: of arrays (parameters) or of tuples (their shapes)."""

Sharding = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
"""A function from a parameter's path (``encoder.conv_in.kernel``) and shape to its sharding."""

EMBEDDING_DEVIATION = 0.02
PARAMETER_DTYPES = ("float32", "bfloat16")
REPOSITORY = re.compile(r"(?P<repo_id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")


def load_directory(
    source: str | Path, *, subfolder: str = "", weights: Sequence[str]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Returns the config of a Hugging Face directory or Hub repository, and its unread tensors.

    `weights` are the file names to look for, in this order. A repository is ``owner/name`` or
    ``owner/name@revision``.
    """
    directory = resolve(source, allow=fetched(weights, folders=(subfolder,))) / subfolder
    return read_config(directory / "config.json"), open_tensors(directory, weights)


def fetched(weights: Sequence[str], *, folders: Sequence[str] = ("",)) -> list[str]:
    """Returns patterns of the files to fetch: each folder's config and weights, whole or split."""
    names = ["config.json", *weights, *(f"{name}.index.json" for name in weights)]
    names += [name.replace(".", "-*.", 1) for name in weights]
    return [f"{folder}/{name}".lstrip("/") for folder in folders for name in names]


def resolve(
    source: str | Path,
    *,
    allow: Sequence[str],
    names: Iterable[str] = (),
    without: str = "'tiny' comes with Pinxit and needs no network",
) -> Path:
    """Returns the directory of `source`, after fetching the files `allow` of a Hub repository.

    ``owner/name@revision`` pins a branch, tag or commit. Files in the Hub's cache are not fetched
    again; with ``HF_HUB_OFFLINE=1`` only the cache is used. For the error messages, `names` are
    short names that the caller accepts, and `without` is a sentence about doing without a network.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.parent == ASSETS:
        return bundled(path.name)
    if path.is_file():
        raise UsageError(refused_file(path))
    match = REPOSITORY.fullmatch(str(source))
    if path.is_absolute() or match is None:
        choices = [*names, "a directory", "a Hub repository id (owner/name or owner/name@revision)"]
        problem = "neither a known name nor a directory"
        raise UsageError(f"{str(source)!r} is {problem}; valid: {', '.join(choices)}")
    return _download(match["repo_id"], match["revision"], allow, without)


def bundled(name: str) -> Path:
    """Returns a directory of the small networks that come with Pinxit."""
    path = ASSETS / name
    if not path.is_dir():
        raise UsageError(f"this installation lacks the bundled networks: {path} is missing")
    return path


def save_directory(
    directory: str | Path,
    config: Mapping[str, Any],
    *,
    params: Tree,
    weights: str,
    more: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes ``config.json`` and one safetensors file, which `load_directory` can read.

    `more` are tensors that are no parameters, by the name in the file.
    """
    from safetensors.numpy import save_file

    text = json.dumps(dict(config), indent=2) + "\n"
    with whole_set(Path(directory), weights, "config.json") as (tensors, about):
        save_file(to_tensors(params) | dict(more or {}), tensors, metadata={"format": "pt"})
        about.write_text(text, encoding="utf-8")


def init_from_shapes(shapes: Tree, key: Array) -> Tree:
    """Initialises float32 parameters as in the table at the top of this module."""
    flat = flatten(shapes)
    keys = jax.random.split(key, len(flat))
    pairs = zip(flat.items(), keys, strict=True)
    return unflatten({path: _initial(path, shape, k) for (path, shape), k in pairs})


def abstract_params(shapes: Tree, dtype: str) -> Tree:
    """Returns parameters as `jax.ShapeDtypeStruct`s of `dtype`, which is enough to compile."""
    kind: Any = jnp.dtype(dtype)
    flat = {path: jax.ShapeDtypeStruct(shape, kind) for path, shape in flatten(shapes).items()}
    return unflatten(flat)


def refuse_float16(dtype: Any, network: str) -> None:
    """Raises a `UsageError` for float16, for a network whose activations exceed its range."""
    if jnp.dtype(dtype) == jnp.float16:
        valid = ", ".join(PARAMETER_DTYPES)
        raise UsageError(f"dtype is float16, in which {network} overflows; valid: {valid}")


def to_tensors(params: Tree) -> dict[str, np.ndarray]:
    """Returns parameters with Hugging Face's names and layout, as float32 NumPy arrays."""
    tensors = {}
    for path, leaf in flatten(params).items():
        value = _transposed(path, np.asarray(leaf, np.float32), out=True)
        tensors[tensor_name(path)] = np.array(value, order="C")
    return tensors


def from_tensors(
    tensors: Mapping[str, StoredTensor | np.ndarray],
    shapes: Tree,
    *,
    source: str | Path = "weights",
    ignore: Callable[[str], bool] = lambda name: False,
    dtype: str = "float32",
    sharding: Sharding | None = None,
    description: str = "the config",
) -> Tree:
    """Returns parameters of `dtype` from tensors of any floating type.

    One `ValueError` lists all tensors that are missing or unexpected or have a wrong shape or type,
    before the first is read. Another lists those with NaN or infinity. `ignore` returns True for
    the names of tensors that belong to another part of the same file. `sharding` returns the
    sharding of each parameter; every process reads all tensors, one at a time, and keeps its shard.
    `description` is the origin of the shapes, for the first message.
    """
    if dtype not in PARAMETER_DTYPES:
        raise UsageError(f"dtype is {dtype!r}; known: {', '.join(PARAMETER_DTYPES)}")
    expected = _expected(tensors, shapes, source, ignore, description)
    problems: list[str] = []
    params = {}
    for name, (path, shape) in _largest_first(expected):
        value = _converted(path, np.asarray(tensors[name]), dtype)
        if not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        params[path] = _placed(value, None if sharding is None else sharding(path, shape))
    _refuse(source, problems, "are damaged")
    return unflatten(params)


def unread_params(
    tensors: Mapping[str, StoredTensor],
    shapes: Tree,
    *,
    source: str | Path = "weights",
    ignore: Callable[[str], bool] = lambda name: False,
) -> Tree:
    """Returns the parameters of `from_tensors` without reading them, for `fingerprint`.

    Raises the same error for tensors that do not fit the shapes. `ignore` is that of
    `from_tensors`.
    """
    expected = _expected(tensors, shapes, source, ignore)
    return unflatten(
        {
            path: UnreadParameter(path, tensors[name], shape)
            for name, (path, shape) in expected.items()
        }
    )


@dataclass(frozen=True)
class UnreadParameter:
    """A parameter that JAX reads from its file each time it is used, and does not keep."""

    path: str
    """The parameter's path, which determines its layout."""
    tensor: Any
    """A tensor in Hugging Face's layout, which `numpy.asarray` reads."""
    shape: tuple[int, ...]

    def __jax_array__(self) -> Array:
        return jnp.asarray(_transposed(self.path, np.asarray(self.tensor), out=False))


def _expected(
    tensors: Mapping[str, StoredTensor | np.ndarray],
    shapes: Tree,
    source: str | Path,
    ignore: Callable[[str], bool],
    description: str = "the config",
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the path and shape of each parameter by its tensor's name.

    Raises unless the tensors fit the shapes.
    """
    expected = {tensor_name(path): (path, tuple(shape)) for path, shape in flatten(shapes).items()}
    if hint := original_layout(tensors):
        raise UsageError(f"{source}: {hint}")
    problems = [f"missing {x}" for x in expected if x not in tensors]
    problems += [f"unexpected {x}" for x in tensors if x not in expected and not ignore(x)]
    for name in expected.keys() & tensors.keys():
        problems += _misfits(name, tensors[name], path=expected[name][0], shape=expected[name][1])
    _refuse(source, problems, f"do not fit {description}")
    return expected


def _largest_first(
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
) -> list[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Sorts the parameters by size. Each takes twice its memory while it is read, so the largest
    are read while there is still room for them."""
    return sorted(expected.items(), key=lambda item: -math.prod(item[1][1]))


def flatten(tree: Mapping[str, Any], prefix: str = "", *, separator: str = ".") -> dict[str, Any]:
    """Flattens ``{"a": {"b": x}}`` to ``{"a.b": x}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}{separator}", separator=separator)
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any], *, separator: str = ".") -> Tree:
    """Unflattens ``{"a.b": x}`` to ``{"a": {"b": x}}``."""
    tree: Tree = {}
    for path, value in flat.items():
        *parents, last = path.split(separator)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def tensor_name(path: str) -> str:
    """Returns the name of the parameter at `path` in Hugging Face's files."""
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", path)


def _misfits(
    name: str, tensor: StoredTensor | np.ndarray, *, path: str, shape: tuple[int, ...]
) -> list[str]:
    """Returns the problems of a tensor that its header shows: a wrong shape or type."""
    problems = []
    # Transpose a view of one number, which has the tensor's shape but needs no memory.
    actual = _transposed(path, np.broadcast_to(0, tensor.shape), out=False).shape
    if actual != shape:
        problems.append(f"{name} has shape {actual}, expected {shape} in {path}")
    if str(tensor.dtype) not in DTYPES.values():
        known = ", ".join(DTYPES.values())
        problems.append(f"{name} is of type {tensor.dtype}, known: {known}")
    return problems


def _refuse(source: str | Path, problems: list[str], fault: str) -> None:
    if problems:
        groups: dict[str, list[str]] = {"missing": [], "unexpected": [], "": []}
        for problem in sorted(problems):
            word = problem.partition(" ")[0]
            groups[word if word in groups else ""].append(problem)
        details = "; ".join(few(group, separator="; ") for group in groups.values() if group)
        raise UsageError(f"{source}: {len(problems)} tensors {fault}: {details}")


def _converted(path: str, value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported as not finite
        return np.array(_transposed(path, value, out=False), dtype=jnp.dtype(dtype), order="C")


def _placed(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> Array:
    if sharding is None:
        return jax.device_put(value)  # jnp.asarray compiles a program for each shape
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _transposed(path: str, value: np.ndarray, *, out: bool) -> np.ndarray:
    if not path.endswith(".kernel"):
        return value
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1) if out else value.transpose(2, 3, 1, 0)
    return value.T


def _initial(path: str, shape: tuple[int, ...], key: Array) -> Array:
    kind = path.rsplit(".", 1)[-1]
    if kind == "kernel":
        return _normal(key, shape) / math.sqrt(math.prod(shape[:-1]))
    if kind.endswith("embedding"):
        return _normal(key, shape) * EMBEDDING_DEVIATION
    return jnp.ones(shape) if kind in ("scale", "running_var") else jnp.zeros(shape)


def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Samples `jax.random.normal`.

    The number of samples is rounded up to a power of two, so that few lengths are compiled. A
    sample does not depend on how many come after it.
    """
    size = math.prod(shape)
    length = 1 << max(12, (size - 1).bit_length())
    return jax.random.normal(key, (length,))[:size].reshape(shape)


def _download(repo_id: str, revision: str | None, allow: Sequence[str], without: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(allow)))
    except (OSError, HTTPError, EntryNotFoundError, HFValidationError) as error:
        pinned = f" --revision {revision}" if revision else ""
        raise UsageError(
            f"{repo_id!r}{f' at revision {revision!r}' if revision else ''} cannot be fetched from "
            f"the Hub. On a machine with a network, run: hf download {repo_id}{pinned} --local-dir "
            f"DIR. Then copy DIR here and pass it instead of the name. {without}. The cause: "
            f"{error}"
        ) from error
