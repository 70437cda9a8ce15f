"""Commands and options that the documentation shows inside its sentences exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from documented_commands import ADDED, check_arguments, check_names, known_options
from markdown_blocks import PAGES, ROOT, inline_commands

INLINE = sorted(set(inline_commands()))
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@pytest.mark.parametrize(("page", "command"), INLINE)
def test_a_command_in_prose_is_understood(page: str, command: str, named_folders: Path, capsys):
    check = check_names if page == "docs/extending.md" else check_arguments
    check(shlex.split(command), named_folders)


@pytest.mark.parametrize("page", PAGES)
def test_an_option_in_prose_exists(page: str):
    text = re.sub(r"^(`{3,}).*?^\1$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    spans = [span for span in SPAN.findall(text) if not span.startswith(("pip ", "ray ", "hf "))]
    options = {o for span in spans for o in re.findall(r"(?<!\S)--[a-z][\w.]*", span)}
    assert options <= known_options() | (ADDED if page == "docs/extending.md" else set())


def test_the_scan_sees_commands_and_options():
    assert ("README.md", "pinxit doctor scenes") in INLINE
    assert ("README.md", "pinxit evaluate --checkpoint runs/scenes") in INLINE
    with pytest.raises(AssertionError):
        check_arguments(["python", "benchmarks/memory_table.py", "--wriet"], ROOT)
    with pytest.raises(AssertionError):
        check_arguments(["pinxit", "train", "--max_stpes", "3"], ROOT)
    with pytest.raises(AssertionError):
        check_arguments(["pinxit", "trian"], ROOT)
