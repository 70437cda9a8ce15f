"""pyproject.toml declares every package that is imported, and no other."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "data": (
        *("data/fetch/", "data/prepared/", "data/sources/", "data/stores/"),
        *("prepare/", "serve/datasets/"),
    ),
    "ray": ("prepare/engines/ray_cluster.py",),
    "wandb": ("train/metric_writers/weights_and_biases.py",),
    "trackio": ("train/metric_writers/trackio_folder.py",),
    "studio": ("serve/",),
    "older-checkpoints": ("checkpoint_version_1.py",),
}
"""Extra to the modules that need it: files, and all that is in folders."""
INDIRECT = {"python-multipart": "Starlette reads forms with it"}
"""Packages that another package imports for us."""


def declared(requirements: list[str]) -> set[str]:
    """Returns the distributions that requirements name, those of the extras they name included."""
    names = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras:
                names |= declared(PROJECT["optional-dependencies"][extra])
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def imported(path: Path) -> Iterator[str]:
    """Yields the top-level name of every import of a module, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@cache
def installed() -> dict[str, set[str]]:
    """Returns import name to the distributions that hold it."""
    found = packages_distributions()
    return {name: {canonicalize_name(each) for each in held} for name, held in found.items()}


def distributions_of(name: str) -> set[str]:
    """Returns the distributions that hold an import name; one not installed has the name itself."""
    return installed().get(name, {canonicalize_name(name)})


def third_party() -> Iterator[tuple[str, str]]:
    """Yields (module's path, import name) for each import from outside Python and the package."""
    for path in sorted((ROOT / "pinxit").rglob("*.py")):
        for name in sorted(set(imported(path))):
            if name not in sys.stdlib_module_names and name != PROJECT["name"]:
                yield str(path.relative_to(ROOT / "pinxit")), name


def test_every_import_is_declared_where_its_module_belongs():
    core = declared(PROJECT["dependencies"])
    undeclared = []
    for module, name in third_party():
        allowed = set(core)
        for extra, places in EXTRAS.items():
            if module.startswith(places):
                allowed |= declared(PROJECT["optional-dependencies"][extra])
        if not distributions_of(name) & allowed:
            undeclared.append((module, name))
    assert undeclared == []


def test_every_declared_package_is_imported():
    used = {each for _, name in third_party() for each in distributions_of(name)}
    needed = declared(PROJECT["dependencies"])
    for extra in EXTRAS:
        needed |= declared(PROJECT["optional-dependencies"][extra])
    assert needed - used == set(INDIRECT)
