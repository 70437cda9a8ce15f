"""The file of a sweep, ``sweep.json``: its command, its axes, and the values of each cell.

Every evaluator's values are stored with the hash of everything that they depend on. So another
command in the same folder uses the values that still apply, and only those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.comparison_grid.axes import spelled
from pinxit.config import UsageError, plain, read_json
from pinxit.evaluate.sweep.cells import Sweep, SweepCell
from pinxit.files import write_json

FORMAT = "pinxit-sweep"


@dataclass
class MeasuredCell:
    """The values of one cell, by evaluator."""

    settings: dict[str, Any]
    """The value of each axis, as JSON."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """The sampling settings of the cell's pictures, with the model's own."""
    model: dict[str, Any] = field(default_factory=dict)
    """The name and the hash of the model, and its average."""
    pictures: int = 0
    """The number of pictures that were drawn."""
    seconds: float | None = None
    """The seconds that the cell took, with compilation; None if it was interrupted."""
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """The values of each evaluator."""
    keys: dict[str, str] = field(default_factory=dict)
    """The hash of everything that each evaluator's values depend on."""

    @property
    def all_values(self) -> dict[str, float]:
        """The values of all evaluators."""
        return {name: value for values in self.values.values() for name, value in values.items()}


@dataclass
class SweepFile:
    """The content of ``sweep.json``. `save` writes it atomically."""

    path: Path
    sweep: Sweep
    command: Sequence[str]
    """The words of the command that makes this sweep."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """The settings and the data that all cells share, as JSON."""
    cells: dict[str, MeasuredCell] = field(default_factory=dict)
    """The cells of this sweep that are measured, by their settings in words."""
    averages: dict[str, MeasuredCell] = field(default_factory=dict)
    """The values that do not depend on drawing, by average."""
    earlier: list[MeasuredCell] = field(default_factory=list)
    """Cells of earlier commands that this sweep has no use for now."""

    @classmethod
    def open(cls, path: Path, sweep: Sweep, command: Sequence[str]) -> SweepFile:
        """Returns the sweep of this command, with all cells in the file as earlier ones.

        Raises `UsageError` if there is another kind of file.
        """
        opened = cls(path, sweep, command)
        if not path.exists():
            return opened
        stored = read_json(path)
        problem = "a file that no sweep of this version has written"
        refusal = UsageError("out", str(path), problem=problem, valid="another --out")
        if stored.get("format") != FORMAT:
            raise refusal
        try:
            for name in ("cells", "averages", "earlier"):
                opened.earlier += [MeasuredCell(**cell) for cell in stored[name]]
        except (KeyError, TypeError) as error:
            raise refusal from error
        return opened

    def stored_values(self, evaluator: str, key: str) -> dict[str, float] | None:
        """Returns stored values of an evaluator that depend on the same things, or None."""
        for cell in (*self.cells.values(), *self.averages.values(), *self.earlier):
            if cell.keys.get(evaluator) == key:
                return cell.values[evaluator]
        return None

    def add(self, cell: SweepCell, measured: MeasuredCell) -> None:
        """Adds a cell, and writes the file. The same cell of an earlier command is replaced if it
        had nothing that the new one lacks."""
        self.cells[cell.words] = measured
        self._replace(measured)
        self.save()

    def add_average(self, ema: str | None, measured: MeasuredCell) -> None:
        """Adds the values of an average that do not depend on drawing, and writes the file."""
        self.averages[str(ema)] = measured
        self._replace(measured)
        self.save()

    def earlier_cell(self, settings: Mapping[str, Any]) -> MeasuredCell | None:
        """Returns the cell of an earlier command with these settings, or None."""
        alike = (cell for cell in self.earlier if cell.pictures and cell.settings == settings)
        return next(alike, None)

    def _replace(self, measured: MeasuredCell) -> None:
        self.earlier = [
            cell for cell in self.earlier if not cell.keys.items() <= measured.keys.items()
        ]

    def save(self) -> None:
        """Writes the file."""
        value = {
            "format": FORMAT,
            "command": list(self.command),
            "axes": [{"name": axis.name, "values": plain(axis.values)} for axis in self.sweep.axes],
            "protocol": self.protocol,
            "cells": [plain(vars(cell)) for cell in self.in_order()],
            "averages": [plain(vars(cell)) for cell in self.averages.values()],
            "earlier": [plain(vars(cell)) for cell in self.earlier],
        }
        write_json(self.path, value, sort_keys=False, indent=2, allow_nan=True)

    def in_order(self) -> list[MeasuredCell]:
        """Returns the cells that are measured, in the order of the sweep."""
        return [self.cells[cell.words] for cell in self.sweep.cells() if cell.words in self.cells]


def as_json(cell: SweepCell) -> dict[str, Any]:
    """Returns the settings of a cell as JSON."""
    return {name: plain(value) for name, value in cell.settings.items()}


def average_in_words(ema: str | None) -> str:
    """Returns an average's name for a message."""
    return "the model" if ema is None else f"the average {spelled(ema)}"
