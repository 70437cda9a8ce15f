"""Runs that the page starts, each in a process of its own, which outlives the studio.

::

    runs/<name>/.studio.json  the process and its command
                .studio.log   what it prints

The record stays beside the run, so that a restarted studio knows its runs. A process is
signalled only if it began at the recorded time and its command trains.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pinxit.config import UsageError, read_json
from pinxit.files import write_json
from pinxit.train.report.run_state import RunState
from pinxit.train.run_starts import existing_process, process_of, starts_of

RECORD, LOG = ".studio.json", ".studio.log"
"""The names of the files in a run's folder."""
LOG_BYTES = 16_384
"""Number of bytes at the end of a log that the page shows."""
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters, which are left out of a log."""


class Busy(RuntimeError):
    """Raised if as many runs train as the studio allows."""


@dataclass
class Trainings:
    """The processes that train runs of a folder."""

    root: Path
    most: int
    """Number of runs that may train at the same time."""
    program: tuple[str, ...] = (sys.executable, "-m", "pinxit", "train")
    """The command, to which the words of a run are added."""
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopping: set[tuple[int, float]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, name: str, words: Sequence[str], active: int) -> None:
        """Starts `pinxit train` with these words. `active` is the number of runs that train."""
        with self._lock:
            self._reap()
            own = sum(child.poll() is None for child in self._children.values())
            if max(active, own) >= self.most:
                raise Busy(
                    f"{max(active, own)} of {self.most} possible runs are training: stop one, or "
                    "allow more with --max_trainings"
                )
            folder = self.root / name
            if self.process(folder) is not None:
                raise UsageError("name", name, problem="training already", valid="another run")
            folder.mkdir(parents=True, exist_ok=True)
            command = [*self.program, *words]
            with _new_log(folder / LOG) as log:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=_environment(),
                )
            self._children[name] = child
            created = psutil.Process(child.pid).create_time()
            record = {"pid": child.pid, "created": created, "time": time.time()}
            write_json(folder / RECORD, {**record, "command": command})

    def _reap(self) -> None:
        """Forgets the children that have ended."""
        for name, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[name]

    def stop(self, folder: Path) -> bool:
        """Asks the process of a run to write a checkpoint and end. Returns False if it was asked
        before: a second signal would end it at once."""
        process = self.process(folder)
        if process is None:
            raise UsageError(
                "name",
                folder.name,
                problem="not in training by a process of this machine that the studio may stop",
            )
        key = (process.pid, process.create_time())
        with self._lock:
            if key in self._stopping:
                return False
            self._stopping.add(key)
        process.send_signal(signal.SIGTERM)
        return True

    def process(self, folder: Path) -> psutil.Process | None:
        """Returns the process that trains a run on this machine, if it exists."""
        record = _record(folder)
        process = existing_process(record["pid"], record["created"]) if record else None
        process = process or process_of(folder)
        return process if process is not None and _trains(process) else None

    def has_record(self, folder: Path) -> bool:
        """Returns whether the page has started this run."""
        return _record(folder) is not None

    def state(self, folder: Path) -> RunState | None:
        """Returns the state of a run that is starting or stopping, or that ended before its first
        step. None means that the run's own files know its state."""
        if (child := self._children.get(folder.name)) is not None:
            child.poll()
        process = self.process(folder)
        if process is not None and self._is_stopping(process):
            words = "stopping: the run writes a checkpoint and ends"
            return RunState("stopping", words)
        starts = starts_of(folder)
        ended = bool(starts) and process is not None and starts[-1]["pid"] == process.pid
        if process is not None and process_of(folder) is None and not ended:
            return RunState("starting", last_line_of(folder) or "starting")
        if process is None and self.has_record(folder) and not (folder / "config.json").is_file():
            return RunState("failed", f"failed: {last_line_of(folder) or 'without a word'}")
        return None

    def _is_stopping(self, process: psutil.Process) -> bool:
        try:
            return (process.pid, process.create_time()) in self._stopping
        except psutil.Error:
            return False

    def log(self, folder: Path) -> str:
        """Returns the end of a run's log, or "" if the page has not started it."""
        return log_of(folder)


def _record(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a run, or None if there is none that can be read."""
    path = folder / RECORD
    try:
        record = read_json(path) if path.is_file() and not path.is_symlink() else {}
    except (UsageError, OSError):
        return None
    known = type(record.get("pid")) is int and isinstance(record.get("created"), int | float)
    return record if known else None


def _trains(process: psutil.Process) -> bool:
    """Returns whether a process is a training of this program."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    names = [Path(word).name for word in words]
    programs = ("pinxit", "train_text_to_image.py", "train_coyo_vae.py")
    return any(name in programs for name in names) and (
        "train" in words or any(name.startswith("train_") for name in names)
    )


def _new_log(path: Path) -> Any:
    """Opens a log, to which a resumed run appends. A link in its place is refused."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o644), "ab")


def _environment() -> dict[str, str]:
    """Returns the environment of a training: the studio's own, without its password."""
    environment = {name: value for name, value in os.environ.items() if name != "PINXIT_TOKEN"}
    return environment | {"PYTHONUNBUFFERED": "1"}


def log_of(folder: Path) -> str:
    """Returns the end of a run's log as plain text."""
    path = folder / LOG
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LOG_BYTES))
        text = file.read(LOG_BYTES).decode("utf-8", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return CONTROLS.sub("", text if size <= LOG_BYTES else text.partition("\n")[2])


def last_line_of(folder: Path) -> str:
    """Returns the last line of a run's log that has text."""
    lines = [line.strip() for line in log_of(folder).splitlines()]
    return next((line[:400] for line in reversed(lines) if line), "")
