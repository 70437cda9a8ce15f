"""The studio on Ray Serve: options are checked before Ray starts, and two replicas give the bytes
of one server."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from studio import running_studio

from pinxit.config import UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"
START_SECONDS = 300


@pytest.fixture(scope="module")
def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("ray_serve_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_options_are_those_of_the_studio(example: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    (tmp_path / "model").mkdir()
    words = [
        "model",
        "owner/name",
        "--max_waiting",
        "3",
        "--max_replicas",
        "4",
        "--out",
        "pictures",
    ]
    config = example.read_options(words)
    assert config.checkpoints == (str(tmp_path / "model"), "owner/name")
    assert config.out == str(tmp_path / "pictures") and config.token is None
    assert (config.max_waiting, config.max_replicas, config.replicas) == (3, 4, 2)


def test_replicas_have_one_token(example: Any):
    token = example.read_options(["--token", "new", "--host", "0.0.0.0"]).token
    assert token and token != "new"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--replicas 0", "replicas: 0 is too small; valid: at least 1"),
        ("--min_replicas 3 --max_replicas 2", "max_replicas: 2 is too small; valid: at least 3"),
        ("--target_requests 0", "target_requests: 0.0 is too small"),
        ("--host 0.0.0.0", "a token is needed"),
        ("--max_side 0", "max_side: 0 is too small"),
        ("--replcas 2", "setting: 'replcas' is unknown; valid: replicas"),
    ],
)
def test_wrong_options_are_refused_before_ray_starts(
    example: Any, words: str, message: str, monkeypatch: Any
):
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    with pytest.raises(UsageError, match=re.escape(message)):
        example.read_options(words.split())


# --- a cluster on this machine ---


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def cluster(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs the example, and yields its address and its process."""
    port = free_port()
    command = [sys.executable, str(EXAMPLE), "--port", str(port), "--cpus", "0.1", *words]
    environment = os.environ | {
        "PYTHONPATH": str(EXAMPLE.parents[1]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PINXIT_TOKEN": "",
    }
    del environment["PINXIT_TOKEN"]
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, text=True, cwd=folder, env=environment
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while f"http://127.0.0.1:{port}/\n" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(url: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    """Sends JSON, and returns the answer's JSON."""
    sent = {"Content-Type": "application/json"} | headers
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data=data, headers=sent), timeout=120
    ) as answer:
        return json.loads(answer.read() or b"null")


def pictures(url: str, seed: int) -> list[str]:
    body = {"prompt": "a small red house", "n": 2, "seed": seed, "num_inference_steps": 4}
    answer = ask(f"{url}/v1/images/generations", body)
    return [entry["b64_json"] for entry in answer["data"]]


def finished(url: str, job: str, **headers: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (state := ask(f"{url}/v1/jobs/{job}", None, **headers))["state"] != "done":
        assert state["state"] in ("queued", "drawing") and time.monotonic() < deadline, state
        time.sleep(0.2)
    return state


@pytest.mark.slow
def test_two_replicas_give_the_bytes_of_one_server(tmp_path: Path):
    pytest.importorskip("ray.serve")
    with running_studio(out=str(tmp_path / "one"), runs=str(tmp_path)) as studio:
        expected = {seed: pictures(studio.url, seed) for seed in range(6)}
    with cluster(tmp_path, "--replicas", "2") as (url, process):
        assert ask(f"{url}/v1/models")["data"]
        for seed, answer in expected.items():
            assert pictures(url, seed) == answer, seed
        # a client that names its session reaches the replica that has its job
        body = {"prompt": "a tent", "n": 1, "seed": 1, "num_inference_steps": 2}
        for number in range(6):
            headers = {"X-Session-Id": f"client-{number}"}
            job = ask(f"{url}/v1/jobs", body, **headers)["id"]
            assert len(finished(url, job, **headers)["pictures"]) == 1
        # of the replicas, only one knows it
        missing = 0
        for number in range(24):
            try:
                ask(f"{url}/v1/jobs/{job}", None, **{"X-Session-Id": f"other-{number}"})
            except urllib.error.HTTPError as error:
                assert error.code == 404
                missing += 1
        assert 0 < missing < 24, "both replicas answer"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    with pytest.raises(OSError):
        ask(f"{url}/health")


@pytest.mark.slow
def test_autoscaling_starts_and_ends(tmp_path: Path):
    pytest.importorskip("ray.serve")
    words = ("--min_replicas", "1", "--max_replicas", "2", "--target_requests", "4")
    with cluster(tmp_path, *words) as (url, process):
        assert len(pictures(url, 1)) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
