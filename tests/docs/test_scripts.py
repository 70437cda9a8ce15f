"""The scripts in scripts/ and benchmarks/ compile, and answer --help without torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
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
