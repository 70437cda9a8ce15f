"""The scripts in scripts/ and benchmarks/ compile, and answer --help without torch."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documented_commands import COMMANDS, known_options, options_of
from markdown_blocks import ROOT

SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
WITH_OPTIONS = [script for script in SCRIPTS if "parse_args(" in script.read_text()]
NO_TORCH = """
import runpy, sys
for name in ("torch", "diffusers", "transformers", "webdataset", "img2dataset"):
    sys.modules[name] = None
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    sys.path.insert(0, script.rpartition("/")[0])
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, script
    else:
        raise AssertionError(f"{script} went on after --help")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_compiles_and_says_how_it_is_called(script: Path):
    code = compile(script.read_text(), str(script), "exec", dont_inherit=True)
    assert any(isinstance(value, str) and len(value) > 20 for value in code.co_consts)
    text = script.read_text()
    if "__main__" in text:
        assert f"python {script.parent.name}/{script.name}" in text, "the docstring has no command"


def test_scripts_answer_help_without_torch():
    """One process for all of them: they share their imports."""
    assert len(WITH_OPTIONS) > 10
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *map(str, WITH_OPTIONS)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("usage: ") == len(WITH_OPTIONS)


def test_files_that_python_files_name_exist():
    """Commands in docstrings call tests, scripts and benchmarks by their paths."""
    named = re.compile(r"(?<![\w./-])(?:tests|scripts|benchmarks|examples)/[\w/]+\.py\b")
    found = {
        (path, str(file.relative_to(ROOT)))
        for folder in ("pinxit", "tests", "scripts", "benchmarks", "examples")
        for file in (ROOT / folder).rglob("*.py")
        for path in named.findall(file.read_text())
    }
    assert len(found) > 60
    assert [name for name in sorted(found) if not (ROOT / name[0]).is_file()] == []


DOCSTRING_COMMAND = re.compile(
    r"^ +((?:pinxit|python) [a-z/].*?)\\?(?: {2,}.*| +#.*)?$|``((?:pinxit|python) [^`]+)``",
    re.MULTILINE,
)


def docstring_commands() -> set[tuple[str, str]]:
    """(path, command) for the commands in docstrings of the package, the scripts and examples."""
    found: set[tuple[str, str]] = set()
    for folder in ("pinxit", "scripts", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                    text = ast.get_docstring(node, clean=False) or ""
                    commands = ("".join(groups) for groups in DOCSTRING_COMMAND.findall(text))
                    name = str(path.relative_to(ROOT))
                    found |= {(name, " ".join(command.split())) for command in commands}
    return found


def test_commands_in_docstrings_exist():
    """Each calls a command or a script that exists, and names options that it has."""
    commands, own = sorted(docstring_commands()), known_options() | {"--extensions"}
    assert len(commands) > 80
    for path, command in commands:
        words, known = shlex.split(command), own
        if words[0] == "pinxit":
            assert words[1] in {*COMMANDS, "--extensions"}, f"{path}: {command}"
        elif words[1] != "-m":
            script = ROOT / words[1]
            assert script.is_file(), f"{path}: {command}"
            known = own if script.parent == ROOT else options_of(script)
        given = {w.partition("=")[0] for w in words if re.match(r"--[a-z]", w)}
        assert {f"--{w[2:].replace('-', '_')}" for w in given} <= known, f"{path}: {command}"
