"""What ranks tell one another in the folder that they share.

A rank whose images are done waits for those of the others. One that ends with failures leaves
``failed-<rank>.json``, so that the others stop waiting; its next start takes that away.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.files import write_json
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.ranks import RankEngine

POLL = 10.0
"""Seconds between looks at what other ranks have done."""


def begin(root: Path, engine: Engine) -> None:
    """Takes back what this rank said when it ended last."""
    if isinstance(engine, RankEngine):
        _note(root, engine.rank).unlink(missing_ok=True)


def give_up(root: Path, engine: Engine, reason: str) -> None:
    """Tells the other ranks that this one has ended, with units undone."""
    if isinstance(engine, RankEngine) and root.is_dir():
        write_json(_note(root, engine.rank), {"rank": engine.rank, "reason": reason})


def given_up(root: Path) -> dict[int, str]:
    """The ranks that have ended with units undone, with the reason."""
    found = {}
    for path in sorted(root.glob("failed-*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            said = json.loads(path.read_text())
            found[int(said["rank"])] = str(said["reason"])
    return found


def await_units(root: Path, units: Iterable[str], *, poll: float | None = None) -> str:
    """Waits until the manifest lists all of these units; otherwise why that will not be. `poll` is
    in seconds, by default `POLL`.

    What a rank said counts at the second look: one that has only just started takes it back.
    """
    wanted, before = set(units), dict[int, str]()
    while True:
        with contextlib.suppress(Unfinished):
            manifest = Manifest.read(root)
            if wanted <= {*manifest.units, *manifest.skipped}:
                return ""
        now = given_up(root)
        if said := [f"rank {rank}: {why}" for rank, why in now.items() if before.get(rank) == why]:
            return f"other ranks have ended with units undone ({'; '.join(said)})"
        before = now
        time.sleep(POLL if poll is None else poll)


def _note(root: Path, rank: int) -> Path:
    return root / f"failed-{rank}.json"
