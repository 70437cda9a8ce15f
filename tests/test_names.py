"""A public name means one thing: no two modules define a class or a function of the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pinxit"
ALLOWED = {
    "main": "each is the entry point of its own program",
    "add_to": "each part of the server adds its own routes",
}
"""Names that several modules may define, with the reason."""


def public_names(path: Path) -> Iterator[str]:
    """Yields the public classes, functions, protocols and callable types of a module, each once."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Callable["):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    yield from (name for name in sorted(names) if not name.startswith("_"))


def test_no_two_modules_share_a_name():
    homes = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in public_names(path):
            homes[name].append(str(path.relative_to(PACKAGE)))
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(shared), "an exception that is no longer needed"
