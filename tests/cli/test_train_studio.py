"""`pinxit train --studio`: the option, the server beside a run, and that neither harms the run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pinxit.cli import train_studio
from pinxit.cli.train import train_command
from pinxit.cli.train_studio import studio_beside, without_studio
from pinxit.config import UsageError


def test_the_option_takes_a_port_or_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_studio, "_free", lambda port: port or 5555)
    assert without_studio(["--steps", "3"]) == (["--steps", "3"], None)
    assert without_studio(["--studio", "--steps", "3"]) == (["--steps", "3"], 7860)
    assert without_studio(["--steps", "3", "--studio"]) == (["--steps", "3"], 7860)
    assert without_studio(["--studio", "8000", "--steps", "3"]) == (["--steps", "3"], 8000)
    assert without_studio(["--studio=0"]) == ([], 5555)


@pytest.mark.parametrize("value", ["x", "70000", "-1", ""])
def test_a_wrong_port_is_refused(value: str):
    with pytest.raises(UsageError, match="studio"):
        without_studio([f"--studio={value}"])


def test_a_port_in_use_is_replaced_by_another():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert train_studio._free(taken) not in (taken, 0)


def test_without_the_extra_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pinxit.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pinxit train --studio needs .* pip install") as raised:
        train_command(["--studio", "--max_steps", "1"])
    assert "\n" not in str(raised.value)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_server_ends_with_the_training(tmp_path: Path, capsys):
    port = train_studio._free(0)
    with studio_beside(str(tmp_path), "a run", port):
        said = capsys.readouterr().out
        assert said.startswith(f"studio: http://127.0.0.1:{port}/#/runs/a%20run (ends with")
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/studio/runs"))
    assert not answers(f"http://127.0.0.1:{port}/studio/runs")
    assert capsys.readouterr().out == ""


def test_a_server_that_fails_is_reported_and_stops_nothing(tmp_path: Path, capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with studio_beside(str(tmp_path), "run", listener.getsockname()[1]):
            said = ""
            deadline = time.monotonic() + 60
            while "goes on" not in said and time.monotonic() < deadline:
                time.sleep(0.1)
                said += capsys.readouterr().out
    assert "warning: the studio has ended, and the training goes on: " in said


@pytest.mark.slow
def test_a_run_is_watched_while_it_trains_and_a_kill_ends_both(tmp_path: Path):
    words = ["--recipe", "scenes", "--dataset_size", "64", "--batch_size", "4", "--name", "r"]
    words += ["--output_dir", str(tmp_path), "--max_steps", "5000", "--log_interval", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pinxit", "train", *words, "--studio", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        match = None
        while match is None:
            match = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        url = f"http://127.0.0.1:{match[1]}/studio/runs/r"
        wait_until(lambda: answers(url), 300)
        wait_until(lambda: b'"loss"' in urllib.request.urlopen(url).read(), 300)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not answers(url), 30)
