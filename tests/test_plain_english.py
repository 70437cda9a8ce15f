"""The package's text is plain English: docstrings are sentences, and odd words stay out.

A function's docstring begins with what it does, in the third person ("Returns", "Reads"). A
property's may name the thing ("The fields of ..."). A string below a field says what the field is,
in at least three words. A new verb goes into stand_ins/verbs.txt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "pinxit").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

VERBS = frozenset((Path(__file__).parent / "stand_ins" / "verbs.txt").read_text().split())
"""Verbs that begin a docstring, one a line; add the one you need."""
OPENINGS = {"the", "a", "an", "whether"}
"""First words, besides verbs, of a property's docstring."""
FRAGMENTS = {
    "what",
    "of",
    "for",
    "as",
    "all",
    "those",
    "these",
    "who",
    "where",
    "how",
    "by",
    "somebody",
}
"""First words that make a docstring a continuation of the name instead of a sentence."""
ODD = re.compile(
    r"\b(anew|whoever|whomever|endless|bears|somebody|nobody|the former|so many|told of|of no use"
    r"|set aside|is heard|are heard|be heard|give or take|besides\.)\b",
    re.IGNORECASE,
)

PARTICIPLES = {"found", "said", "told", "begun", "wanted", "given", "kept", "some", "made", "taken"}
"""Names that do not say what the variable holds."""


def variables(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Variables and parameters that are given a value, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Functions with a docstring, and whether each is a property."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            yield node, any("property" in ast.unparse(one) for one in node.decorator_list)


def fields(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings that stand below an assignment of a module or a class, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            for before, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                    value = after.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield after.lineno, value.value


def problems(path: Path) -> Iterator[str]:
    """Everything in a file that is not a sentence, as "line: what"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.stat().st_size and not (ast.get_docstring(tree) or "").partition("\n\n")[0].endswith(
        "."
    ):
        yield "1: the module has no docstring that ends its first paragraph with a full stop"
    for node, is_property in functions(tree):
        text = ast.get_docstring(node) or ""
        first = re.split(r"[\s,;:]", text)[0].lower()
        if first not in VERBS and not (is_property and first in OPENINGS):
            yield f"{node.lineno}: {node.name} begins with {text.split()[0]!r}, not with a verb"
        if not text.partition("\n\n")[0].rstrip().endswith((".", ":", "::")):
            yield f"{node.lineno}: {node.name}: no full stop"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            text = ast.get_docstring(node) or ""
            if not text and not node.name.startswith("_"):
                yield f"{node.lineno}: class {node.name} has no docstring"
            elif text and (text.split()[0].lower() in FRAGMENTS or len(text.split()) < 3):
                yield f"{node.lineno}: class {node.name}: {text.splitlines()[0]!r} is a fragment"
    for line, text in fields(tree):
        words = text.split()
        if (
            len(words) < 3
            or words[0].lower() in FRAGMENTS
            or not text.rstrip().endswith((".", ":"))
        ):
            yield f"{line}: {text.splitlines()[0]!r} is a fragment"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_sentences(path):
    assert list(problems(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_name_the_thing(path):
    named = variables(ast.parse(path.read_text(encoding="utf-8")))
    assert [f"{line}: {name}" for line, name in named if name in PARTICIPLES] == []


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_odd_words_stay_out(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{i}: {line}" for i, line in enumerate(lines, 1) if ODD.search(line)] == []


def test_the_check_finds_fragments(tmp_path):
    """Each kind of fragment is found, and a sentence is not."""
    path = tmp_path / "text.py"
    path.write_text(
        '"""Holds examples."""\n\nSIZE = 3\n"""Of rows."""\n\n\nclass One:\n    """All."""\n\n'
        '    def two(self):\n        """Images as bytes."""\n\n'
        '    def three(self):\n        """Returns images."""\n'
    )
    found = list(problems(path))
    assert len(found) == 3 and all(str(line) in " ".join(found) for line in (4, 7, 10))
