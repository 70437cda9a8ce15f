"""Weights in Hugging Face's directory format, to and from nested dicts of arrays.

A network is described by the tree of its shapes, whose keys spell Hugging Face's tensor names:
``{"conv_in": {"kernel": (3, 3, 3, 64), "bias": (64,)}}`` is ``conv_in.weight``, ``conv_in.bias``.
The last key tells how a tensor is laid out and how it begins:

============= ============================ ===================== =======================
last key      ours                         Hugging Face's        initial value
============= ============================ ===================== =======================
``kernel``    (height, width, in, out)     (out, in, h, w)       normal, variance 1 / (fan in)
``kernel``    (in, out)                    (out, in)             normal, variance 1 / (fan in)
``scale``     (width,)                     ``weight``, the same  one
``embedding`` (rows, width)                ``weight``, the same  normal, deviation 0.02
``bias``      (width,)                     ``bias``, the same    zero
============= ============================ ===================== =======================

Only safetensors files are read (`stored.py`), one tensor at a time: each is checked, converted and
placed on its devices before the next one is touched. Everything wrong with the names, shapes and
types is said in one `ValueError` before anything is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pinxit.config import UsageError
from pinxit.encoders.safetensors_files import DTYPES, StoredTensor, open_tensors, read_config
from pinxit.files import whole_set

__all__ = [
    *("ASSETS", "PARAMETER_DTYPES", "Sharding", "StoredTensor", "Tree"),
    *("abstract_params", "bundled", "fetched", "flatten", "from_tensors", "init_from_shapes"),
    *("load_directory", "read_config", "resolve", "save_directory", "tensor_name", "to_tensors"),
    "unflatten",
]

ASSETS = Path(__file__).resolve().parents[1] / "assets"
"""The folder of the small networks that come with Pinxit."""

Tree = dict[str, Any]
"""A nested dict: of arrays (parameters) or of tuples (their shapes)."""

Sharding = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
"""Where a parameter goes, from its path (``encoder.conv_in.kernel``) and its shape."""

EMBEDDING_DEVIATION = 0.02
PARAMETER_DTYPES = ("float32", "bfloat16")
REPOSITORY = re.compile(r"(?P<repo_id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")


def load_directory(
    source: str | Path, *, subfolder: str = "", weights: Sequence[str]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The config and the unread tensors of a Hugging Face directory or Hub repository.

    `weights` are the file names to look for, in this order. A repository is ``owner/name`` or
    ``owner/name@revision``.
    """
    directory = resolve(source, allow=fetched(weights, folders=(subfolder,))) / subfolder
    return read_config(directory / "config.json"), open_tensors(directory, weights)


def fetched(weights: Sequence[str], *, folders: Sequence[str] = ("",)) -> list[str]:
    """What `resolve` needs of a repository: each folder's config and weights, whole or split."""
    names = ["config.json", *weights, *(f"{name}.index.json" for name in weights)]
    names += [name.replace(".", "-*.", 1) for name in weights]
    return [f"{folder}/{name}".lstrip("/") for folder in folders for name in names]


def resolve(source: str | Path, *, allow: Sequence[str], names: Iterable[str] = ()) -> Path:
    """The directory that `source` names; of a Hub repository, the files `allow` are fetched first.

    ``owner/name@revision`` pins a branch, tag or commit. What the Hub's cache has is not fetched
    again; with ``HF_HUB_OFFLINE=1`` only the cache is looked at. `names` are the short names that
    the caller knows, for the message.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.parent == ASSETS:
        return bundled(path.name)
    if path.is_file():
        raise UsageError(f"{path} is a file; pass the directory that holds it and config.json")
    match = REPOSITORY.fullmatch(str(source))
    if path.is_absolute() or match is None:
        choices = [*names, "a directory", "a Hub repository id (owner/name or owner/name@revision)"]
        raise UsageError(f"there is no {str(source)!r} to load; known: {', '.join(choices)}")
    return _download(match["repo_id"], match["revision"], allow)


def bundled(name: str) -> Path:
    """The directory of the small networks that come with Pinxit."""
    path = ASSETS / name
    if not path.is_dir():
        raise UsageError(f"this installation lacks its bundled networks: {path} is missing")
    return path


def save_directory(
    directory: str | Path, config: Mapping[str, Any], *, params: Tree, weights: str
) -> None:
    """Writes ``config.json`` and one safetensors file, the form `load_directory` reads."""
    from safetensors.numpy import save_file

    text = json.dumps(dict(config), indent=2) + "\n"
    with whole_set(Path(directory), weights, "config.json") as (tensors, about):
        save_file(to_tensors(params), tensors, metadata={"format": "pt"})
        about.write_text(text, encoding="utf-8")


def init_from_shapes(shapes: Tree, key: Array) -> Tree:
    """Fresh float32 parameters, by the rule in this module's table."""
    flat = flatten(shapes)
    keys = jax.random.split(key, len(flat))
    pairs = zip(flat.items(), keys, strict=True)
    return unflatten({path: _initial(path, shape, k) for (path, shape), k in pairs})


def abstract_params(shapes: Tree, dtype: str) -> Tree:
    """Parameters as `jax.ShapeDtypeStruct`s of `dtype`: what a compiler needs of them."""
    kind: Any = jnp.dtype(dtype)
    flat = {path: jax.ShapeDtypeStruct(shape, kind) for path, shape in flatten(shapes).items()}
    return unflatten(flat)


def to_tensors(params: Tree) -> dict[str, np.ndarray]:
    """Parameters under Hugging Face's names and in its layout, as float32 NumPy arrays."""
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
) -> Tree:
    """Parameters of `dtype` from tensors, whatever floating type these have.

    All missing, foreign and misshapen ones, and those of other types, are in one `ValueError`
    before the first is read; those with NaN or infinity are in another. `ignore` names the tensors
    that another part of the same file owns. `sharding` says where each parameter goes; every
    process reads all of it, one tensor at a time, and keeps its own part.
    """
    if dtype not in PARAMETER_DTYPES:
        raise UsageError(f"dtype is {dtype!r}; known: {', '.join(PARAMETER_DTYPES)}")
    wanted = {tensor_name(path): (path, tuple(shape)) for path, shape in flatten(shapes).items()}
    problems = [f"missing {name}" for name in wanted if name not in tensors]
    problems += [f"foreign {name}" for name in tensors if name not in wanted and not ignore(name)]
    for name in wanted.keys() & tensors.keys():
        problems += _misfits(name, tensors[name], path=wanted[name][0], shape=wanted[name][1])
    _refuse(source, problems, "do not fit the config")
    params = {}
    for name, (path, shape) in wanted.items():
        value = _converted(path, np.asarray(tensors[name]), dtype)
        if not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        params[path] = _placed(value, None if sharding is None else sharding(path, shape))
    _refuse(source, problems, "are damaged")
    return unflatten(params)


def flatten(tree: Mapping[str, Any], prefix: str = "", *, separator: str = ".") -> dict[str, Any]:
    """``{"a": {"b": x}}`` as ``{"a.b": x}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}{separator}", separator=separator)
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any], *, separator: str = ".") -> Tree:
    """``{"a.b": x}`` as ``{"a": {"b": x}}``."""
    tree: Tree = {}
    for path, value in flat.items():
        *parents, last = path.split(separator)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def tensor_name(path: str) -> str:
    """The name under which Hugging Face's files hold the parameter at `path`."""
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", path)


def _misfits(
    name: str, tensor: StoredTensor | np.ndarray, *, path: str, shape: tuple[int, ...]
) -> list[str]:
    """What is wrong with a tensor that its header tells."""
    found = []
    # A view of one number has the shape of the tensor and no contents.
    given = _transposed(path, np.broadcast_to(0, tensor.shape), out=False).shape
    if given != shape:
        found.append(f"{name} gives {given}, expected {shape} in {path}")
    if str(tensor.dtype) not in DTYPES.values():
        known = ", ".join(DTYPES.values())
        found.append(f"{name} is of type {tensor.dtype}, known: {known}")
    return found


def _refuse(source: str | Path, problems: list[str], what: str) -> None:
    if problems:
        listed = "; ".join(sorted(problems))
        raise UsageError(f"{source}: {len(problems)} tensors {what}: {listed}")


def _converted(path: str, value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported as not finite
        return np.array(_transposed(path, value, out=False), dtype=jnp.dtype(dtype), order="C")


def _placed(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> Array:
    if sharding is None:
        return jnp.asarray(value)
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
    return jnp.ones(shape) if kind == "scale" else jnp.zeros(shape)


def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    """`jax.random.normal`, from a few lengths, each of which is compiled once: a value does not
    depend on how many come after it."""
    size = math.prod(shape)
    length = 1 << max(12, (size - 1).bit_length())
    return jax.random.normal(key, (length,))[:size].reshape(shape)


def _download(repo_id: str, revision: str | None, allow: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(allow)))
    except (OSError, HTTPError, EntryNotFoundError, HFValidationError) as error:
        pinned = f" --revision {revision}" if revision else ""
        raise UsageError(
            f"{repo_id!r}{f' at revision {revision!r}' if revision else ''} cannot be fetched from "
            f"the Hub. Where there is a network, run: hf download {repo_id}{pinned} --local-dir "
            "DIR, bring DIR here and pass it instead of the name; 'tiny' comes with Pinxit and "
            f"needs no network. The cause: {error}"
        ) from error
