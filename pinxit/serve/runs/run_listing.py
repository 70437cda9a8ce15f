"""Lists the runs in the studio's folder. A name is looked up in the folder's listing, so that no
name can lead out of it, and links are not followed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, read_json
from pinxit.serve.runs.trainings import Trainings
from pinxit.train.metric_rows import wrong_row
from pinxit.train.report.run_rows import finite
from pinxit.train.report.run_samples import GridFacts, grids
from pinxit.train.report.run_state import RunState, results_of, state_of
from pinxit.train.run_folder import RunFolder

END = 256 * 1024
"""Number of bytes at the end of metrics.jsonl that the list reads."""


SETTLED_NS = 2_000_000_000
"""A folder that changed this many nanoseconds ago or earlier shows a later change in its time."""


class NoSuchRun(LookupError):
    """Raised for a name that is no run in the folder."""


@dataclass
class RunListing:
    """The runs in a folder."""

    root: Path
    trainings: Trainings
    _known: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    _names: tuple[int, frozenset[str]] = (0, frozenset())
    """The time of the folder's last change, and the names in it then."""

    def folders(self) -> list[RunFolder]:
        """Returns the folders of runs, and of those that are about to start, by name."""
        return [folder for folder in self._subfolders() if self._is_run(folder)]

    def _subfolders(self) -> list[RunFolder]:
        """Returns the folders in the folder by name, whatever they contain."""
        try:
            entries = sorted(os.scandir(self.root), key=lambda entry: entry.name)
        except OSError:
            return []
        return [
            RunFolder(self.root / entry.name)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]

    def _listed_names(self) -> frozenset[str]:
        """Returns the names in the folder, which is listed again if it may have changed."""
        try:
            changed = self.root.stat().st_mtime_ns
        except OSError:
            return frozenset()
        known, names = self._names
        if known != changed or time.time_ns() - changed < SETTLED_NS:
            names = frozenset(folder.root.name for folder in self._subfolders())
            self._names = changed, names
        return names

    def _is_run(self, folder: RunFolder) -> bool:
        config = folder.config
        if not config.is_file() or config.is_symlink():
            return self.trainings.has_record(folder.root)
        return "max_steps" in _settings(folder)

    def find(self, name: str) -> RunFolder:
        """Returns the folder of a run, or raises `NoSuchRun`."""
        folder = RunFolder(self.root / name) if name in self._listed_names() else None
        if folder is not None and _is_folder(folder.root) and self._is_run(folder):
            return folder
        raise NoSuchRun(f"there is no run {name[:200]!r} in {self.root}")

    def state(self, folder: RunFolder, latest: dict[str, Any] | None = None) -> RunState:
        """Returns the state of a run, including one that has only just been started."""
        own = self.trainings.state(folder.root)
        if own is not None:
            return own
        if latest is None:
            latest = newest_row(folder)
        max_steps = _settings(folder).get("max_steps")
        return state_of(folder, max_steps=max_steps or 0, latest=latest)

    def summaries(self) -> list[dict[str, Any]]:
        """Returns one entry for each run, those that train first, then the newest."""
        entries = [self._summary(folder) for folder in self.folders()]
        active = ("starting", "running", "stopping")
        return sorted(entries, key=lambda entry: (entry["state"] not in active, -entry["updated"]))

    def _summary(self, folder: RunFolder) -> dict[str, Any]:
        files = (folder.config, folder.metrics, folder.results, folder.root / "starts.json")
        stamp = [_stamp(path) for path in (*files, folder.samples)]
        known = self._known.get(folder.root.name)
        if known is None or known[0] != stamp:
            known = self._known[folder.root.name] = (stamp, _facts(folder))
        facts = known[1]
        state = self.state(folder, facts["latest"])
        shown = {name: value for name, value in facts.items() if name != "latest"}
        pace = finite(facts["latest"].get("seconds_per_step"))
        left = None
        if state.state == "running" and pace is not None:
            left = pace * max(0, facts["max_steps"] - facts["step"])
        return {"name": folder.root.name, **shown, **state.to_json(), "seconds_left": left}


def _is_folder(path: Path) -> bool:
    """Returns whether a path is a folder and not a link."""
    return path.is_dir() and not path.is_symlink()


def _settings(folder: RunFolder) -> dict[str, Any]:
    """Returns a run's settings, or nothing if they cannot be read."""
    try:
        return {} if folder.config.is_symlink() else read_json(folder.config)
    except (UsageError, OSError):
        return {}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _facts(folder: RunFolder) -> dict[str, Any]:
    """Returns what the list shows of a run."""
    settings, results, row = _settings(folder), results_of(folder) or {}, newest_row(folder)
    max_steps = settings.get("max_steps")
    times = [stamp[0] for path in (folder.metrics, folder.config) if (stamp := _stamp(path))]
    all_grids = grids(folder, last_step=results.get("step"))
    accuracy = results.get("accuracy")
    losses = results.get("validation")
    known = [value for value in map(finite, losses.values()) if value is not None] if isinstance(
        losses, dict
    ) else []  # fmt: skip
    return {
        "latest": row,
        "step": max(row.get("step", 0), results.get("step", 0)),
        "max_steps": max_steps if isinstance(max_steps, int) else 0,
        "loss": finite(row.get("loss")),
        "validation_loss": min(known, default=None),
        "accuracy": finite(accuracy.get("prompts/accuracy/mean"))
        if isinstance(accuracy, dict)
        else None,
        "dataset": str(settings.get("dataset_name", "")),
        "sample": _sample(all_grids[-1]) if all_grids else None,
        "updated": max(times, default=0) / 1e9,
    }


def _sample(grid: tuple[int, Path]) -> dict[str, Any] | None:
    """Returns the grid's file and the place of one picture in it, of the last average."""
    facts = GridFacts().of(*grid)
    if facts is None:
        return None
    last = next((cell for cell in reversed(facts["cells"]) if cell["number"] == 0), None)
    first = [cell for cell in facts["cells"] if last and cell["label"] == last["label"]]
    return {**facts, "cells": first[:1]}


def newest_row(folder: RunFolder) -> dict[str, Any]:
    """Returns the newest row of metrics with a loss, from the end of the file."""
    if folder.metrics.is_symlink() or not folder.metrics.is_file():
        return {}
    with folder.metrics.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - END))
        lines = file.read(END).split(b"\n")
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not wrong_row(row) and "loss" in row:
            return row
    return {}
