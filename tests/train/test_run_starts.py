"""The record of a run's starts, and the state that follows from it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pinxit.train import run as run_module
from pinxit.train import run_starts
from pinxit.train.current_run import CurrentRun
from pinxit.train.report.run_state import state_of
from pinxit.train.run_folder import RunFolder
from pinxit.train.run_starts import NAME, process_of, recorded, starts_of
from pinxit.train.watch import watchers


@dataclass(frozen=True)
class Ended:
    status: str
    step: int = 10
    reason: str = ""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "config.json").write_text("{}")
    return RunFolder(tmp_path)


def guard(record):
    record()


def test_a_run_is_running_while_its_process_exists(folder: RunFolder):
    def act():
        found = process_of(folder.root)
        assert found is not None and found.pid == os.getpid()
        assert state_of(folder, max_steps=20).state == "running"
        return Ended("stopped", reason="SIGTERM after step 10")

    recorded(folder.root, 0, act, guard)
    state = state_of(folder, max_steps=20)
    assert (state.state, state.words) == ("stopped", "stopped: SIGTERM after step 10")
    recorded(folder.root, 10, lambda: Ended("failed", 12, "not finite"), guard)
    assert [entry["step"] for entry in starts_of(folder.root)] == [0, 10]
    assert state_of(folder, max_steps=20).state == "failed"
    assert state_of(folder, max_steps=20, latest={"consecutive": 3}).state == "diverged"
    folder.results.write_text(json.dumps({"step": 20}))
    assert state_of(folder, max_steps=20).state == "finished"
    assert state_of(folder, max_steps=30).state == "failed", "it was extended"


def test_an_exception_is_recorded_and_passes(folder: RunFolder):
    with pytest.raises(OSError):
        recorded(folder.root, 0, lambda: (_ for _ in ()).throw(OSError("the disk")), guard)
    assert state_of(folder, max_steps=9).words == "failed: OSError: the disk"


def test_a_killed_process_leaves_an_interrupted_run(folder: RunFolder):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    created = psutil.Process(child.pid).create_time()
    entry = {"step": 0, "time": time.time(), "host": socket.gethostname()}
    entry |= {"pid": child.pid, "created": created}
    (folder.root / NAME).write_text(json.dumps({"starts": [entry]}))
    assert state_of(folder, max_steps=9).state == "running"
    (folder.root / NAME).write_text(json.dumps({"starts": [{**entry, "created": created - 60}]}))
    assert state_of(folder, max_steps=9).state == "interrupted", "another process has its number"
    child.kill()
    child.communicate()
    assert state_of(folder, max_steps=9).state == "interrupted"


def test_a_run_of_another_machine_runs_while_it_writes(folder: RunFolder):
    entry = {"step": 0, "time": 1.0, "host": "elsewhere", "pid": 1, "created": 1.0}
    (folder.root / NAME).write_text(json.dumps({"starts": [entry]}))
    assert state_of(folder, max_steps=9).words == "running on another machine"
    os.utime(folder.config, (1, 1))
    assert state_of(folder, max_steps=9).state == "interrupted"


@pytest.mark.parametrize("text", ["", "[]", '{"starts": 3}', '{"starts": [{"pid": "1"}, 4]}'])
def test_a_damaged_record_has_no_starts(folder: RunFolder, text: str):
    (folder.root / NAME).write_text(text)
    assert starts_of(folder.root) == [] and process_of(folder.root) is None


def test_a_disk_that_hangs_does_not_keep_a_stopped_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    released, said = threading.Event(), []
    monkeypatch.setattr(watchers, "GRACE", 0.2)
    monkeypatch.setattr(run_starts, "write_json", lambda *args, **more: released.wait())
    stopped = run_module.RunResult("stopped", folder.root, 10, reason="SIGTERM")
    run = CurrentRun.__new__(CurrentRun)
    vars(run).update(
        folder=folder,
        step=0,
        page=SimpleNamespace(write=released.wait),
        watchers=watchers.Watchers(said.append, stop=lambda: "SIGTERM"),
        writers=SimpleNamespace(close=lambda seconds: None),
        interruption=SimpleNamespace(heard=lambda: "SIGTERM"),
    )
    try:
        assert run_module._recorded(run, lambda: stopped) is stopped
    finally:
        released.set()
    assert any(line.startswith("writing the report: not finished") for line in said), said
