"""The state of a run, from its folder and the system: running, finished, stopped and so on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.train.run_folder import RunFolder
from pinxit.train.run_starts import is_active_elsewhere, process_of, starts_of

WORDS = {
    "running": "running",
    "finished": "finished",
    "stopped": "stopped; the same command resumes",
    "failed": "failed",
    "diverged": "diverged: the loss stopped being a number",
    "interrupted": "interrupted: the process has ended without a word; the same command resumes",
}


@dataclass(frozen=True)
class RunState:
    """The state of a run."""

    state: str
    """One of `WORDS`."""
    words: str
    """The state as a sentence for the page."""

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON."""
        return asdict(self)


def state_of(
    folder: RunFolder, *, max_steps: int, latest: Mapping[str, Any] | None = None
) -> RunState:
    """Returns the state of a run whose newest row of metrics is `latest`."""
    if process_of(folder.root) is not None:
        return RunState("running", WORDS["running"])
    starts = starts_of(folder.root)
    last = starts[-1] if starts else {}
    results = results_of(folder)
    end = last.get("end") if isinstance(last.get("end"), Mapping) else None
    if results is not None and results.get("step", 0) >= max_steps:
        return RunState("finished", WORDS["finished"])
    if end is not None:
        return _ended(end, latest or {})
    if is_active_elsewhere(folder.root, _newest(folder)):
        where = "on another machine" if starts else "as far as its files tell"
        return RunState("running", f"running {where}")
    return RunState("interrupted", WORDS["interrupted"])


def _ended(end: Mapping[str, Any], latest: Mapping[str, Any]) -> RunState:
    """Returns the state of a run that has recorded its end."""
    status, reason = str(end.get("status")), str(end.get("reason") or "")
    if status == "failed" and latest.get("consecutive"):
        status = "diverged"
    if status not in WORDS or status == "running":
        status = "interrupted"
    words = f"{status}: {reason}" if reason else WORDS[status]
    return RunState(status, words)


def results_of(folder: RunFolder) -> dict[str, Any] | None:
    """Returns the results of a finished run, or None if there are none that can be read."""
    try:
        results = None if folder.results.is_symlink() else folder.finished()
    except (UsageError, OSError):
        return None
    return results if results and isinstance(results.get("step"), int) else None


def _newest(folder: RunFolder) -> float:
    """Returns the time at which the run last wrote its settings or a row."""
    times = []
    for path in (folder.metrics, folder.config):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
