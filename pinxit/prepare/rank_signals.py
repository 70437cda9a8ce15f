"""Signals between ranks, as files in the folder that they share.

A rank whose images are done waits for the images of the others. A rank that ends with failures
leaves ``failed-<rank>.json``, so that the others stop waiting. Its next start removes the file.
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
"""Seconds between two checks of the other ranks' progress."""


def begin(root: Path, engine: Engine) -> None:
    """Removes the signal that this rank may have left when it last ended."""
    if isinstance(engine, RankEngine):
        _signal_path(root, engine.rank).unlink(missing_ok=True)


def give_up(root: Path, engine: Engine, reason: str) -> None:
    """Tells the other ranks that this one has ended without finishing its units."""
    if isinstance(engine, RankEngine) and root.is_dir():
        write_json(_signal_path(root, engine.rank), {"rank": engine.rank, "reason": reason})


def given_up(root: Path) -> dict[int, str]:
    """Returns the reason of each rank that has ended without finishing its units."""
    reasons = {}
    for path in sorted(root.glob("failed-*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            signal = json.loads(path.read_text())
            reasons[int(signal["rank"])] = str(signal["reason"])
    return reasons


def await_units(root: Path, units: Iterable[str], *, poll: float | None = None) -> str:
    """Waits until the manifest lists all of these units, and returns an empty string.

    If other ranks end without finishing their units, returns a description of the reasons. `poll`
    is the time between checks in seconds, by default `POLL`. A signal counts if it is still there
    at the next check, because a rank that has just restarted removes its old one.
    """
    expected, before = set(units), dict[int, str]()
    while True:
        with contextlib.suppress(Unfinished):
            manifest = Manifest.read(root)
            if expected <= {*manifest.units, *manifest.skipped}:
                return ""
        now = given_up(root)
        if ended := [f"rank {n}: {reason}" for n, reason in now.items() if before.get(n) == reason]:
            return f"other ranks have ended without finishing their units ({'; '.join(ended)})"
        before = now
        time.sleep(POLL if poll is None else poll)


def _signal_path(root: Path, rank: int) -> Path:
    return root / f"failed-{rank}.json"
