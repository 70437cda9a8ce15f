"""Checks the types of all arguments and results of the package while the tests run.

Modules with annotated arrays are checked by jaxtyping, which also compares shapes between the
arguments of a call, and the others by beartype alone, whose checks take a fraction of the time.
"""

from __future__ import annotations

from pathlib import Path

from beartype import BeartypeConf
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[2] / "pinxit"
GUARD = "TYPE_CHECKING"
SPECIAL = ("from jaxtyping", GUARD, "NamedTuple")
"""What marks the modules that jaxtyping checks."""
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"


def modules_that_contain(text: str) -> list[str]:
    """Returns the names of the package's modules with a text. A folder's name would stand for all
    modules in it, so folders are left out."""
    root = PACKAGE.parent
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    found = [path for path in paths if text in path.read_text("utf-8")]
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in found)


def install() -> None:
    """Checks what is imported from now on.

    Beartype alone refuses names that a module imports for type checkers only, and named tuples
    whose fields have such types, so jaxtyping checks these modules, too.
    """
    names = {name for text in SPECIAL for name in modules_that_contain(text)}
    special = sorted(names)
    conf = BeartypeConf(
        is_pep484_tower=True, claw_is_pep526=False, claw_skip_package_names=tuple(special)
    )
    beartype_package("pinxit", conf=conf)
    install_import_hook(special, CHECKER)
