"""The starts of a run: which process trained it from which step on, and how it ended.

``starts.json`` in the run's folder has one entry per start. A process that is killed leaves its
entry without an end, so that a reader asks the system whether the process still exists.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import psutil

from pinxit.config import UsageError, read_json
from pinxit.files import write_json

NAME = "starts.json"
"""The name of the file in a run's folder."""
MOST = 200
"""Number of starts that are kept, the newest."""
SILENT = 600.0
"""Seconds without a new file after which a run on another machine no longer counts as running."""


@runtime_checkable
class EndOfRun(Protocol):
    """The end of a run, as `RunResult` describes it."""

    @property
    def status(self) -> str:
        """Returns "finished", "stopped" or "failed"."""
        ...

    @property
    def step(self) -> int:
        """Returns the number of steps taken."""
        ...

    @property
    def reason(self) -> str:
        """Returns why the run stopped or failed."""
        ...


T = TypeVar("T", bound=EndOfRun)


def starts_of(root: Path) -> list[dict[str, Any]]:
    """Returns the starts of a run, oldest first: none if it has no readable record of them."""
    try:
        path = root / NAME
        is_file = path.is_file() and not path.is_symlink()
        entries = read_json(path).get("starts") if is_file else []
    except (UsageError, OSError):
        return []
    known = entries if isinstance(entries, list) else []
    return [dict(entry) for entry in known if _is_start(entry)]


def _is_start(entry: Any) -> bool:
    """Returns whether a value of JSON has the form of a start."""
    if not isinstance(entry, Mapping):
        return False
    numbers = ("step", "pid", "created", "time")
    return all(type(entry.get(name)) in (int, float) for name in numbers) and isinstance(
        entry.get("host"), str
    )


def recorded(
    root: Path, step: int, act: Callable[[], T], guard: Callable[[Callable[[], None]], object]
) -> T:
    """Returns what `act` returns, and records its start at `step` and its end in the run's folder.

    `guard` runs the recording, which must not stop the run if it fails.
    """
    guard(lambda: _add_start(root, step))
    try:
        result = act()
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".strip(": ")[:400]
        status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        guard(lambda: _add_end(root, status, None, reason))
        raise
    guard(lambda: _add_end(root, result.status, result.step, result.reason))
    return result


def _add_start(root: Path, step: int) -> None:
    """Adds an entry for this process."""
    process = psutil.Process()
    entry = {"step": step, "time": time.time(), "host": socket.gethostname(), "pid": process.pid}
    _write(root, [*starts_of(root), {**entry, "created": process.create_time()}])


def _add_end(root: Path, status: str, step: int | None, reason: str) -> None:
    """Adds the end to the newest entry."""
    entries = starts_of(root)
    if entries:
        end = {"status": status, "step": step, "reason": reason, "time": time.time()}
        _write(root, [*entries[:-1], {**entries[-1], "end": end}])


def _write(root: Path, entries: list[dict[str, Any]]) -> None:
    write_json(root / NAME, {"starts": entries[-MOST:]}, sort_keys=False)


def process_of(root: Path) -> psutil.Process | None:
    """Returns the process that trains the run on this machine, if it exists."""
    entries = starts_of(root)
    if not entries or "end" in entries[-1] or entries[-1]["host"] != socket.gethostname():
        return None
    return existing_process(int(entries[-1]["pid"]), float(entries[-1]["created"]))


def existing_process(pid: int, created: float) -> psutil.Process | None:
    """Returns the process with this id that began at this time: an id is used again after a while.
    Returns None if it has ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ValueError, OverflowError):
        return None


def is_active_elsewhere(root: Path, newest: float) -> bool:
    """Returns whether another machine seems to train the run, whose newest file was written at the
    time `newest`."""
    entries = starts_of(root)
    if entries and ("end" in entries[-1] or entries[-1]["host"] == socket.gethostname()):
        return False
    return time.time() - max(newest, entries[-1]["time"] if entries else 0.0) < SILENT
