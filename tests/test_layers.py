"""No module of the package imports itself by way of others, lazy imports included."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pinxit"


def modules_of(package: Path) -> dict[str, Path]:
    """Returns the file of each module of a package, by the module's dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def is_type_checking(test: ast.expr) -> bool:
    """Returns whether a condition is ``TYPE_CHECKING``, with or without its module."""
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def imports_of(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yields all import statements below a node that run, those inside functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for statement in child.orelse:
                yield from imports_of(ast.Module([statement], []))
        else:
            yield from imports_of(child)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Returns the modules of the package that each of its modules imports."""
    modules = modules_of(package)
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        imported = graph[name] = set()
        for statement in imports_of(ast.parse(path.read_text(), str(path))):
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            else:
                assert not statement.level, f"{path}: a relative import is not understood"
                base = statement.module or ""
                inside = [f"{base}.{alias.name}" for alias in statement.names]
                names = [module if module in modules else base for module in inside]
            imported.update(module for module in names if module in modules)
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules of an import circle, or nothing if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_the_package_has_no_import_circle():
    graph = import_graph(PACKAGE)
    assert len(graph) > 100 and "pinxit.train.input.open" in graph["pinxit.train.run"]
    # open.py imports this one inside a function
    assert "pinxit.train.input.streamed" in graph["pinxit.train.input.open"]
    assert not circle_in(graph), " -> ".join(circle_in(graph))


@pytest.mark.parametrize(
    ("back", "circle"),
    [
        ("", False),
        ("from toy.a import f", True),
        ("import toy.a", True),
        ("from toy import a", True),
        ("def f():\n    from toy.a import f", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.a", False),
        ("import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import toy.a", True),
    ],
)
def test_circles_are_seen(tmp_path: Path, back: str, circle: bool):
    toy = tmp_path / "toy"
    toy.mkdir()
    (toy / "__init__.py").touch()
    (toy / "a.py").write_text("import os\nfrom toy.b import g\n")
    (toy / "b.py").write_text(back)
    assert bool(circle_in(import_graph(toy))) is circle
