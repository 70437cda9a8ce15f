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

Only safetensors files are read. Everything wrong with a file is said in one `ValueError`.
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

Tree = dict[str, Any]
"""A nested dict: of arrays (parameters) or of tuples (their shapes)."""

EMBEDDING_DEVIATION = 0.02
PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


def load_directory(
    source: str | Path, *, subfolder: str = "", weights: Sequence[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config and the tensors of a Hugging Face directory or Hub repository (``owner/name``)."""
    prefix = f"{subfolder}/" if subfolder else ""
    names = ["config.json", *weights, *(f"{name}.index.json" for name in weights)]
    names += [name.replace(".", "-*.", 1) for name in weights]
    directory = resolve(source, allow=[prefix + name for name in names]) / subfolder
    return read_json(directory / "config.json"), read_tensors(directory, weights)


def resolve(source: str | Path, *, allow: Sequence[str], names: Iterable[str] = ()) -> Path:
    """The directory that `source` names; of a Hub repository, the files `allow` are fetched first.

    `names` are the short names that the caller knows, for the message.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)):
        known = ", ".join([*names, "a directory", "a Hub repository id (owner/name)"])
        raise ValueError(f"there is no {str(source)!r} to load; known: {known}")
    return _download(str(source), allow)


def bundled(name: str) -> Path:
    """The directory of the small networks that come with Pinxit."""
    path = Path(__file__).resolve().parents[1] / "assets" / name
    if not path.is_dir():
        raise ValueError(f"this installation lacks its bundled networks: {path} is missing")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}; it has {sorted(_names(path.parent))}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def read_tensors(directory: Path, weights: Sequence[str]) -> dict[str, np.ndarray]:
    """Every tensor of a directory, from the first file of `weights` there, whole or sharded."""
    for name in weights:
        if (directory / name).is_file():
            return _read_safetensors(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _read_sharded(index)
    names = sorted(_names(directory))
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise ValueError(
            f"{directory} has only pickled weights ({', '.join(pickles)}), which can run code when "
            "opened; convert them to safetensors"
        )
    raise ValueError(f"{directory} has none of {list(weights)}; it has {names}")


def save_directory(
    directory: str | Path, config: Mapping[str, Any], *, params: Tree, weights: str
) -> None:
    """Writes ``config.json`` and one safetensors file, the form `load_directory` reads."""
    from safetensors.numpy import save_file

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(config), indent=2) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")
    save_file(to_tensors(params), directory / weights, metadata={"format": "pt"})


def init_params(shapes: Tree, key: Array) -> Tree:
    """Fresh float32 parameters, by the rule in this module's table."""
    flat = flatten(shapes)
    keys = jax.random.split(key, len(flat))
    pairs = zip(flat.items(), keys, strict=True)
    return unflatten({path: _initial(path, shape, k) for (path, shape), k in pairs})


def to_tensors(params: Tree) -> dict[str, np.ndarray]:
    """Parameters under Hugging Face's names and in its layout, as float32 NumPy arrays."""
    tensors = {}
    for path, leaf in flatten(params).items():
        value = _transposed(path, np.asarray(leaf, np.float32), out=True)
        tensors[tensor_name(path)] = np.array(value, order="C")
    return tensors


def from_tensors(
    tensors: Mapping[str, np.ndarray],
    shapes: Tree,
    *,
    source: str | Path = "weights",
    ignore: Callable[[str], bool] = lambda name: False,
) -> Tree:
    """Parameters from tensors; all missing, foreign, misshapen and NaN ones in one `ValueError`.

    `ignore` names the tensors that another part of the same file owns.
    """
    wanted = {tensor_name(path): (path, shape) for path, shape in flatten(shapes).items()}
    problems = [f"missing {name}" for name in wanted if name not in tensors]
    problems += [f"foreign {name}" for name in tensors if name not in wanted and not ignore(name)]
    params = {}
    for name, (path, shape) in wanted.items():
        if name not in tensors:
            continue
        value = _transposed(path, np.asarray(tensors[name]).astype(np.float32), out=False)
        if value.shape != tuple(shape):
            problems.append(f"{name} gives {value.shape}, expected {tuple(shape)} in {path}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        params[path] = value
    if problems:
        listed = "; ".join(problems)
        raise ValueError(f"{source}: {len(problems)} tensors do not fit the config: {listed}")
    return unflatten({path: jnp.asarray(value) for path, value in params.items()})


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


def _transposed(path: str, value: np.ndarray, *, out: bool) -> np.ndarray:
    if not path.endswith(".kernel"):
        return value
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1) if out else value.transpose(2, 3, 1, 0)
    return value.T


def _initial(path: str, shape: tuple[int, ...], key: Array) -> Array:
    kind = path.rsplit(".", 1)[-1]
    if kind == "kernel":
        return jax.random.normal(key, shape) / math.sqrt(math.prod(shape[:-1]))
    if kind.endswith("embedding"):
        return jax.random.normal(key, shape) * EMBEDDING_DEVIATION
    return jnp.ones(shape) if kind == "scale" else jnp.zeros(shape)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _read_sharded(index: Path) -> dict[str, np.ndarray]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no 'weight_map'")
    names = sorted(set(weight_map.values()))
    missing = [n for n in names if Path(n).name != n or not (index.parent / n).is_file()]
    if missing:
        raise ValueError(f"{index} names files that are not there: {missing}")
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        tensors |= _read_safetensors(index.parent / name)
    return tensors


def _download(repo_id: str, allow: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(allow)))
    except OSError as error:
        raise ValueError(f"{repo_id!r} cannot be fetched from the Hub: {error}") from error


def _names(directory: Path) -> list[str]:
    return [p.name for p in directory.iterdir()] if directory.is_dir() else []
