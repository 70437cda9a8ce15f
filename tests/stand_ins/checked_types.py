"""Checks the types and shapes of arrays while the tests run.

jaxtyping binds the arguments of every call of the functions that it checks, which took a third of
the tests' time when it checked the whole package. So it checks the modules with annotated arrays.
The types of the other modules are checked by pyrefly, without running them.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[2] / "pinxit"
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"


def modules_with_arrays() -> list[str]:
    """Returns the names of the package's modules that use jaxtyping. A folder's name would stand
    for all modules in it, so folders are left out."""
    root = PACKAGE.parent
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    found = [path for path in paths if "from jaxtyping" in path.read_text("utf-8")]
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in found)


def install() -> None:
    """Checks what is imported from now on."""
    install_import_hook(modules_with_arrays(), CHECKER)
