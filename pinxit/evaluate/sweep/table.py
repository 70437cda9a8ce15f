"""The table of a sweep as Markdown: a row for each cell, the best value of each column in bold."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from pinxit.comparison_grid.axes import spelled
from pinxit.evaluate.headlines import Headline, constants, headlines, shown_value, summaries
from pinxit.evaluate.sweep.storing import MeasuredCell, SweepFile
from pinxit.evaluate.value_table import value_table


def sweep_table(file: SweepFile) -> str:
    """Returns the page ``sweep.md``: the command, the table, and the values that stay the same."""
    cells = file.in_order()
    values = [cell.all_values for cell in cells]
    lines = ["# Sweep", "", *_about(file), ""]
    columns = headlines(values)
    names = [axis.name for axis in file.sweep.axes]
    body = [[_setting(cell.settings[name]) for name in names] for cell in cells]
    lines += value_table(names, body, columns, values)
    if same := constants(values):
        texts = [f"{Headline(name).words} {shown_value(value)}" for name, value in same.items()]
        lines += ["", f"The same in all cells: {'; '.join(texts)}."]
    if averages := [cell for cell in file.averages.values() if cell.all_values]:
        lines += ["", "Values that do not depend on drawing:", "", *_average_table(averages)]
    arrows = "↑: higher is better; ↓: lower is better. The best values of a column are bold."
    return "\n".join([*lines, "", f"{arrows} All values are in sweep.json.", ""])


def _average_table(averages: Sequence[MeasuredCell]) -> list[str]:
    values = [cell.all_values for cell in averages]
    rows = [[str(cell.model.get("ema") or "default")] for cell in averages]
    return value_table(["ema"], rows, summaries(values), values)


def _setting(value: Any) -> str:
    return spelled(tuple(value) if isinstance(value, list) else value)


def _about(file: SweepFile) -> list[str]:
    """Returns the lines that say what was measured, and the command."""
    protocol = file.protocol
    lines = [f"- {name}: {text}" for name, text in protocol.get("in_words", {}).items()]
    return [*lines, "", "Command:", "", "    " + shlex.join(file.command)]
