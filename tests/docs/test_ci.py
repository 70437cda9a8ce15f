"""What CI runs is what README tells people to run."""

from __future__ import annotations

import os
import re

from markdown_blocks import ROOT, read_blocks

LINES = (ROOT / ".ci" / "run").read_text().splitlines()


def test_readmes_test_command_is_a_line_of_ci():
    commands = [
        line
        for block in read_blocks()
        if block.page == "README.md" and block.language == "bash"
        for line in block.text.splitlines()
        if re.search(r"\bpytest\b", line)
    ]
    assert len(commands) == 1
    assert commands[0] in LINES


def test_ci_stops_at_the_first_failure_and_checks_everything():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in LINES
    checks = ("ruff check .", "ruff format --check .", "codespell", "lint-imports", "pyrefly check")
    assert set(checks) <= set(LINES)
