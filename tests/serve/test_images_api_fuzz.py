"""Malformed requests over every route that takes a body: all are refused, shortly and cheaply."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from malformed_requests import malformed_requests
from studio import RunningStudio

from pinxit.serve.errors import LONGEST

SERVER = """
import sys
sys.path.insert(0, {stand_ins!r})
from studio import folders_in, running_studio
from pathlib import Path
with running_studio(**folders_in(Path({folder!r}))) as studio:
    print(studio.url, flush=True)
    sys.stdin.read()
"""
"""A program that serves a studio until its input ends."""


@contextmanager
def studio_process(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serves a studio in a process of its own, and yields its address and the process."""
    stand_ins = str(Path(__file__).parents[1] / "stand_ins")
    program = SERVER.format(stand_ins=stand_ins, folder=str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
        process.stdin.close()
        assert process.wait(60) == 0


def posting(url: str) -> list[str]:
    """Returns the paths of all routes that take bodies, from the server's own description."""
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    posting = [path for path, methods in paths.items() if "post" in methods]
    assert {"/v1/images/generations", "/v1/images/edits", "/v1/jobs"} <= set(posting)
    return posting


def draw(client: httpx.Client) -> None:
    """Draws pictures, which shows that the server still works."""
    answer = client.post("/v1/images/generations", json={"prompt": "a", "n": 4})
    assert answer.status_code == 200


def refuse_all(url: str, count: int, seed: int, process: psutil.Process) -> tuple[Counter, float]:
    """Sends malformed requests. Returns the number of each kind, and the most MiB by which the
    memory of the server's process grew."""
    kinds, memory = Counter[str](), []
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(3):  # loads the model, and every thread draws, which takes its own memory
            draw(client)
        memory.append(process.memory_info().rss)
        for number, each in enumerate(malformed_requests(posting(url), count, seed)):
            answer = client.post(each.path, headers=each.headers, content=each.body())
            where = (
                f"{number}: {each.kind} to {each.path}: {answer.status_code} {answer.text[:300]}"
            )
            assert 400 <= answer.status_code < 500, where
            assert len(answer.content) <= LONGEST, where
            error = json.loads(answer.content)["error"]
            assert set(error) == {"message", "type", "param", "code"}, where
            assert error["message"] and error["type"], where
            kinds[each.kind] += 1
            memory.append(process.memory_info().rss)
        draw(client)
    growth = (max(memory) - memory[0]) / 2**20
    print(f"{count} requests, {dict(kinds)}, memory {growth:+.1f} MiB at most")
    return kinds, growth


def test_malformed_requests_are_refused(studio: RunningStudio):
    kinds, _ = refuse_all(studio.url, 200, 0, psutil.Process())
    assert len(kinds) == 11


@pytest.mark.slow
def test_2000_malformed_requests_are_refused_without_growth(tmp_path):
    with studio_process(tmp_path) as (url, process):
        kinds, growth = refuse_all(url, 2000, 1, process)
    assert sum(kinds.values()) == 2000 and growth <= 50
