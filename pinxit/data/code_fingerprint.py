"""Hashes the code that makes a dataset, so that results computed from it can be cached.

The hash covers the files of the modules that define the functions and classes, and all files that
these import directly or indirectly from the same package. For a file outside any package, it covers
the imported files next to it. Other packages are not followed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = __name__.partition(".")[0]
"""The name of this package. Imports of it from user code are not followed."""


def code_fingerprint(*objects: Any) -> str:
    """Returns the hash of the code behind functions, classes and instances.

    Code without a file (typed into a notebook) is hashed by its source text. Where the source is
    not available either, every call returns a different hash.
    """
    files: dict[str, Path] = {}
    digest = hashlib.sha256()
    for item in objects:
        definition = _definition(item)
        if definition.__module__ == "builtins":
            continue
        module = sys.modules.get(definition.__module__)
        path = getattr(module, "__file__", None)
        if path is None:
            digest.update(_source(definition).encode())
            continue
        # The module of a script is called __main__, whatever its file is called.
        name = module.__spec__.name if module and module.__spec__ else Path(path).stem
        _collect(name, Path(path), files)
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    return digest.hexdigest()


def _definition(item: Any) -> Any:
    """Returns the function or class behind an object."""
    while isinstance(item, functools.partial):
        item = item.func
    item = inspect.unwrap(item) if callable(item) else item
    is_definition = isinstance(item, type) or inspect.isfunction(item)
    return item if is_definition else type(item)


def _source(definition: Any) -> str:
    try:
        return inspect.getsource(definition)
    except (OSError, TypeError):
        return uuid.uuid4().hex


def _collect(name: str, path: Path, files: dict[str, Path]) -> None:
    """Adds a module's file and the files that it imports to `files`, by module name."""
    if name in files:
        return
    files[name] = path
    is_package = path.name == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    root = path.parents[name.count(".") + is_package]
    top = name.partition(".")[0] if package else None
    for imported in _imports(ast.parse(path.read_bytes()), package):
        first = imported.partition(".")[0]
        if first != top if top is not None else first == OWN:
            continue
        file = _file_of(imported, root)
        if file is not None:
            _collect(imported, file, files)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yields the full names that a module may import, at its top level or anywhere inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            names = [*(base if node.level else ()), *([node.module] if node.module else ())]
            module = ".".join(name for name in names if name)
            if module:
                yield module
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)


def _file_of(name: str, root: Path) -> Path | None:
    """Returns the file of a module whose top-level package lies in `root`, or None."""
    path = root.joinpath(*name.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None
