"""The package's text is plain English: docstrings are sentences, and odd words stay out.

A function's docstring begins with what it does, in the third person ("Returns", "Reads"). A
property's may name the thing ("The fields of ..."). A string below a field says what the field is,
in at least three words. A new verb is added to `VERBS`.
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

VERBS = frozenset(
    """
    accepts acquires adds adjusts advances aggregates allocates allows annotates appends applies
    asks assembles asserts assigns averages begins binds blocks bounds broadcasts builds caches
    calls cancels caps casts centres checks chooses claims classifies cleans clears clips closes
    collects combines compares compiles completes composes computes concatenates configures
    connects constructs consumes continues converts copies corrects counts covers creates crops
    cuts deallocates decides decodes decreases deduplicates defines deletes delivers derives
    describes detects determines discards disconnects dispatches displays divides does downloads
    draws drives drops embeds emits empties enables encodes ends ensures enters enumerates erases
    escapes estimates evaluates evicts examines excludes exchanges executes exits expands explains
    exports extends extracts fails feeds fetches fills filters finalises finds finishes fits
    flags flattens flushes folds follows forces forgets formats forwards frees gathers generates
    gets gives groups guards guesses handles has hashes hides holds identifies ignores implements
    imports includes increases indicates infers initialises inserts inspects installs integrates
    interpolates interprets inverts is iterates joins keeps kills labels launches leaves lets limits
    lists loads locates locks logs looks lowers makes maps marks masks matches measures merges
    mixes models modulates monitors moves multiplies names normalises notes notices observes opens
    orders orthogonalises outputs packs pads parses partitions passes patches pauses performs picks
    places plans plots points polls pools predicts prepares presents prevents prints probes
    processes produces projects promises prompts propagates provides publishes pulls puts queries
    quantises queues raises randomises ranks reads rebuilds receives recognises recomputes reconnects
    records recovers reduces refills refuses registers rejects releases removes renames renders
    reopens repeats replaces replays reports represents requests requires reserves resets reshapes
    resizes resolves restarts restores restricts resumes retries retrieves returns reuses reverses
    rewrites rotates rounds runs samples saves says scales scans schedules scores searches seeds
    selects sends separates serialises serves sets shards shares shifts shortens shows shuffles
    shuts signals simulates skips sleeps slices smooths solves sorts spawns splits spreads stacks
    standardises starts stops stores streams strips submits subtracts sums supplies suppresses
    swaps switches synchronises takes tells terminates tests throttles times tokenises tracks
    trains transfers transforms translates transposes traverses treats trims truncates tries turns
    undoes unflattens unlocks unpacks unrolls updates uploads uses validates verifies visits waits
    walks warns watches weights wraps writes yields zeroes
    """.split()
)
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

PARTICIPLES = frozenset("found said told begun wanted given kept some made taken".split())
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
