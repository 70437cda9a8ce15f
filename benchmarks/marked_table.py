"""Writes a table into a page, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_table(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replaces what is between the marks `begin` and `end` by the lines of a Markdown table."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    table = "\n".join(lines)
    page.write_text(f"{before}{begin}\n{table}\n\n{end}{rest.partition(end)[2]}", "utf-8")
