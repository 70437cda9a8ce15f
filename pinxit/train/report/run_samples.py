"""The sample grids of a run, by step, and the pictures in them."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.contact_sheet import cells_of
from pinxit.train.run_folder import RunFolder

NAME = re.compile(r"step_(\d{1,12})\.png")
"""The names of the grids in the folder of samples, besides the final one."""
FINAL = "final.png"
"""The name of the grid at the end of a run."""
MOST_EMBEDDED = 40
"""Number of grids that a page contains: the first, the last, and some between them."""
MOST_BYTES = 3_000_000
"""Number of bytes of the pictures in a page, as text; more of them are left out."""
QUALITY = 82
"""Quality of the embedded pictures."""


def grids(folder: RunFolder, *, last_step: int | None = None) -> list[tuple[int, Path]]:
    """Returns the steps and paths of a run's grids, in order. The final one belongs to `last_step`
    and stands for the grid of that step, since it has all averages."""
    by_step: dict[int, Path] = {}
    for name in reversed(_names_in(folder.samples)):
        if (match := NAME.fullmatch(name)) is not None:
            by_step[int(match[1])] = folder.samples / name
    if last_step is not None and (final := grid_file(folder, FINAL)) is not None:
        by_step[last_step] = final
    return sorted(by_step.items())


def _names_in(samples: Path) -> list[str]:
    """Returns the names of the files in a folder, in order. Links are left out, and none of the
    files is looked at, since the folder itself says what they are."""
    if not samples.is_dir() or samples.is_symlink():
        return []
    with os.scandir(samples) as entries:
        return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))


def grid_file(folder: RunFolder, name: str) -> Path | None:
    """Returns the path of the grid with a name, or None. Only names of grids are looked up."""
    if name != FINAL and NAME.fullmatch(name) is None:
        return None
    path = folder.samples / name
    is_file = path.is_file() and not path.is_symlink() and not folder.samples.is_symlink()
    return path if is_file else None


@dataclass
class GridFacts:
    """Reads where the pictures are in grids, and keeps that by name, time and size."""

    _known: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)

    def of(self, step: int, path: Path) -> dict[str, Any] | None:
        """Returns step, file name, size and cells of a grid; None if it cannot be read."""
        try:
            status = path.stat()
            key = (str(path), status.st_mtime_ns, status.st_size)
            if key not in self._known:
                with Image.open(path, formats=("PNG",)) as sheet:
                    self._known[key] = {
                        "file": path.name,
                        "bytes": status.st_size,
                        "changed": status.st_mtime_ns // 1_000_000,
                        **self._described(sheet),
                    }
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        return {"step": step, **self._known[key]}

    def all(self, steps_and_paths: Sequence[tuple[int, Path]]) -> list[dict[str, Any]]:
        """Returns the facts of all grids that can be read."""
        return [
            facts for step, path in steps_and_paths if (facts := self.of(step, path)) is not None
        ]

    def _described(self, sheet: Image.Image) -> dict[str, Any]:
        """Returns the size and the cells of a grid that was opened."""
        cells = _inside(cells_of(sheet), sheet.size)
        return {"width": sheet.width, "height": sheet.height, "cells": cells}


def _inside(cells: Sequence[dict[str, Any]], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Returns the cells whose box is inside the grid."""
    return [
        cell
        for cell in cells
        if cell["box"][0] + cell["box"][2] <= size[0] and cell["box"][1] + cell["box"][3] <= size[1]
    ]


@dataclass
class EmbeddedGrids(GridFacts):
    """Turns grids into text for a page, each of them at most twice however often the page is
    written. Only the text of grids in the page stays in memory."""

    _every: int = 1

    def all(self, steps_and_paths: Sequence[tuple[int, Path]]) -> list[dict[str, Any]]:
        """Returns the facts of grids, with `src` as a data address: of all, or of every second,
        fourth, eighth … so that they fit, and of the last one."""
        while -(-len(steps_and_paths) // self._every) >= MOST_EMBEDDED:
            self._every *= 2
        while True:
            chosen = list(steps_and_paths[:: self._every])
            chosen += [one for one in steps_and_paths[-1:] if one not in chosen]
            grids = super().all(chosen)
            if len(chosen) <= 2 or sum(len(grid["src"]) for grid in grids) <= MOST_BYTES:
                break
            self._every *= 2
        shown = {str(path) for _, path in chosen}
        self._known = {key: facts for key, facts in self._known.items() if key[0] in shown}
        return grids

    def _described(self, sheet: Image.Image) -> dict[str, Any]:
        """Returns the size, the cells and the data address of a grid that was opened."""
        described, buffer = super()._described(sheet), io.BytesIO()
        sheet.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=4)
        text = base64.b64encode(buffer.getvalue()).decode()
        return {**described, "src": f"data:image/webp;base64,{text}"}
