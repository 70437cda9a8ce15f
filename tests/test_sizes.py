"""The limits of CONTRIBUTING.md: short files and functions, and names that say what is inside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pinxit"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 400
"""Lines."""
LONGEST_FUNCTION = 60
"""Lines, with decorators, signature and docstring."""
MEANINGLESS = {"utils", "util", "common", "helpers", "helper", "misc"}


def functions_of(source: str) -> list[tuple[str, int]]:
    """Returns name and number of lines of every function, methods and inner ones included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found.append((node.name, (node.end_lineno or first) - first + 1))
    return found


def test_the_lines_of_a_function_are_counted_from_its_first_decorator():
    source = "@cache\ndef outer():\n    def inner():\n        pass\n    return inner\n"
    assert functions_of(source) == [("outer", 5), ("inner", 2)]


def test_there_is_something_to_measure():
    assert len(MODULES) > 150


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_and_has_a_name(path: Path):
    source = path.read_text()
    lines = len(source.splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines"
    long = [(name, size) for name, size in functions_of(source) if size > LONGEST_FUNCTION]
    assert long == [], f"{path} has functions of more than {LONGEST_FUNCTION} lines"
    assert not MEANINGLESS & set(path.relative_to(PACKAGE).with_suffix("").parts)


PAGE = sorted(
    path
    for path in (PACKAGE / "assets" / "studio").rglob("*")
    if path.suffix in (".js", ".css", ".html")
)


@pytest.mark.parametrize("path", PAGE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_of_the_page_is_short(path: Path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert not MEANINGLESS & set(path.relative_to(PACKAGE).with_suffix("").parts)


MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc")
"""What would turn a text into markup or code."""


@pytest.mark.parametrize("path", PAGE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_of_the_page_turns_texts_into_markup(path: Path):
    source = path.read_text()
    assert [word for word in MARKUP if word in source] == []
    assert " style=" not in source
    assert "http://" not in source.replace("http://www.w3.org/", "")
    assert "https://" not in source


def test_no_two_test_files_share_a_name():
    """Pytest imports them by their names alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
