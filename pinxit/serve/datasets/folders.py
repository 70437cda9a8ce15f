"""Finds prepared datasets: in the data folders of the studio, and those that runs were trained on.

A name in an address is only ever looked up in what is found here. It is never made part of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pinxit.data.prepared.manifest import is_prepared

MOST = 1_000
"""The maximum number of entries of one folder that are looked at."""
LARGEST_CONFIG = 2**21
"""The largest size in bytes of a run's settings that are read."""


@dataclass(frozen=True)
class DatasetFolder:
    """A prepared dataset, finished or not."""

    name: str
    """The name in addresses: the folder's name, with a mark if two folders share it."""
    root: Path
    runs: tuple[str, ...] = ()
    """The names of the runs that were trained on it."""


def find_datasets(data: Sequence[str], runs: Path | None) -> dict[str, DatasetFolder]:
    """Returns the prepared datasets by name.

    `data` are prepared folders, or folders that contain some. `runs` is a folder of runs.
    """
    roots: dict[Path, tuple[str, ...]] = {}
    for folder in data:
        for root in _prepared_in(Path(folder).expanduser()):
            roots.setdefault(root, ())
    for run, root in _named_by_runs(runs) if runs is not None else ():
        roots[root] = (*roots.get(root, ()), run)
    names: dict[str, list[Path]] = {}
    for root in roots:
        names.setdefault(root.name or "data", []).append(root)
    datasets = {}
    for name, same in sorted(names.items()):
        for root in same:
            unique = name if len(same) == 1 else f"{name}-{_mark(root)}"
            datasets[unique] = DatasetFolder(unique, root, roots[root])
    return datasets


def missing_folders(data: Sequence[str]) -> list[str]:
    """Returns the data folders that do not exist."""
    return [folder for folder in data if not Path(folder).expanduser().is_dir()]


def _mark(root: Path) -> str:
    """Returns six hex digits that tell this folder from others of the same name."""
    return hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _prepared_in(folder: Path) -> Iterator[Path]:
    """Yields the folder if it is prepared, else the prepared folders in it."""
    if is_prepared(str(folder)):
        yield folder.resolve()
        return
    for child in _children(folder):
        if child.is_dir() and is_prepared(str(child)):
            yield child.resolve()


def _children(folder: Path) -> list[Path]:
    """Returns the first entries of a folder by name; none if it cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))[:MOST]
    return []


def _named_by_runs(runs: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name of each run that names a prepared dataset, with the dataset's folder."""
    for run in _children(runs):
        config = run / "config.json"
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            if config.stat().st_size <= LARGEST_CONFIG:
                path = json.loads(config.read_text("utf-8")).get("dataset_path")
                if isinstance(path, str) and is_prepared(path):
                    yield run.name, Path(path).expanduser().resolve()
