"""The studio's server through signals, a sudden death and a full disk, and beside a training."""

from __future__ import annotations

import json
import os
import resource
import signal
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
from drill_table import record
from PIL import Image

from pinxit.checkpoint_files import arrays_of_checkpoint
from pinxit.picture_files import read_recipe

ROOT = Path(__file__).parents[2]
DRAIN_LIMIT = 30.0
"""Seconds from SIGTERM to the end of the server."""
START_LIMIT = 120.0
"""Seconds to the first answer, on a machine that does other things as well."""
PROMPT = "a small red house under a full moon"


class Server:
    """A `pinxit studio` in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        """Starts the server, and waits for its first answer."""
        options = ("--port", "0", "--open", "0", "--out", "outputs", "--concurrency", "1")
        self.out = folder / "outputs"
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pinxit", "studio", *options, *words],
            cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "http://" in line:
                break
        assert self.process.poll() is None, self.lines
        self.url = next(w for w in self.lines[-1].split() if w.startswith("http")).rstrip("/")
        assert self.ask("/health") is not None
        self.seconds_to_answer = time.monotonic() - started

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Sends JSON, and returns the answer's JSON, or its text."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = answer.read()
        try:
            return json.loads(content)
        except ValueError:
            return content.decode("utf-8", "replace")

    def draw(self, steps: int, n: int = 1, seed: int = 0) -> str:
        """Puts a job with pictures for the gallery into the queue, and returns its id."""
        body = {"prompt": PROMPT, "n": n, "seed": seed, "num_inference_steps": steps, "keep": True}
        return self.ask("/v1/jobs", body)["id"]

    def wait_for(self, job: str, *states: str) -> dict[str, Any]:
        """Waits until a job has one of the states, and returns it."""
        deadline = time.monotonic() + 120
        while (about := self.ask(f"/v1/jobs/{job}"))["state"] not in states:
            assert time.monotonic() < deadline, about
            time.sleep(0.05)
        return about

    def wait_for_stored(self, job: str, count: int) -> None:
        """Waits until the gallery has this number of a job's pictures, while it goes on."""
        deadline = time.monotonic() + 120
        while True:
            about = self.ask(f"/v1/jobs/{job}")
            if sum(picture["stored"] is not None for picture in about["pictures"]) >= count:
                return
            assert about["state"] in ("queued", "drawing") and time.monotonic() < deadline, about
            time.sleep(0.05)

    def gallery(self) -> list[str]:
        """Returns the names of the gallery's pictures."""
        names: list[str] = []
        more = True
        while more:
            before = f"&before={names[-1]}" if names else ""
            answer = self.ask(f"/studio/gallery?limit=60{before}")
            names += [entry["name"] for entry in answer["pictures"]]
            more = answer["more"]
        return names

    def whole(self) -> list[str]:
        """Checks that the gallery shows all files of its folder, each of them complete."""
        names = self.gallery()
        files = sorted(path.name for path in self.out.glob("*.*") if not path.name.startswith("."))
        assert sorted(names) == files
        for name in names:
            with Image.open(self.out / name) as picture:
                picture.load()
            assert read_recipe(self.out / name)["prompt"] == PROMPT
        return names

    def end(self) -> None:
        """Ends the process, however it stands."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def environment() -> dict[str, str]:
    """Returns the variables of the processes, without a token."""
    others = {name: value for name, value in os.environ.items() if name != "PINXIT_TOKEN"}
    return others | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


@contextmanager
def server(folder: Path, *words: str) -> Iterator[Server]:
    """Starts a server, which ends with the block."""
    running = Server(folder, *words)
    try:
        yield running
    finally:
        running.end()


@pytest.mark.slow
def test_it_answers_and_draws_soon(tmp_path: Path):
    with server(tmp_path) as studio:
        started = time.monotonic()
        studio.wait_for(studio.draw(16), "done")
        to_picture = time.monotonic() - started
        assert studio.seconds_to_answer < START_LIMIT and to_picture < START_LIMIT
    evidence = f"answer after {studio.seconds_to_answer:.1f} s, picture {to_picture:.1f} s later"
    print(evidence)
    record("studio", "start", 1, 1, evidence)


@pytest.mark.slow
def test_sigterm_drains_and_ends_with_0(tmp_path: Path):
    with server(tmp_path) as studio:
        studio.wait_for(studio.draw(2), "done")
        jobs = [studio.draw(60, n=2, seed=10 * number) for number in range(3)]
        studio.wait_for_stored(jobs[0], 1)
        before = time.monotonic()
        studio.process.send_signal(signal.SIGTERM)
        code = studio.process.wait(DRAIN_LIMIT + 10)
        seconds = time.monotonic() - before
        assert code == 0 and seconds <= DRAIN_LIMIT
    with server(tmp_path) as studio:
        names = studio.whole()
        # all jobs finished, if the machine did it in time; no file is partial
        assert len(names) == 7 or (len(names) >= 2 and seconds > DRAIN_LIMIT - 2)
    record("studio", "SIGTERM, 3 jobs", 1, 1, f"{seconds:.1f} s, exit 0, {len(names)} pictures")


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path):
    with server(tmp_path, "--drain_seconds", "600") as studio:
        jobs = [studio.draw(250, n=16, seed=20 * number) for number in range(3)]
        studio.wait_for(jobs[0], "drawing")
        studio.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert studio.process.poll() is None, "it drains"
        before = time.monotonic()
        studio.process.send_signal(signal.SIGTERM)
        assert studio.process.wait(10) == 128 + signal.SIGTERM
        seconds = time.monotonic() - before
        assert seconds < 2
    with server(tmp_path) as studio:
        studio.whole()
    record("studio", "two SIGTERM", 1, 1, f"{seconds:.2f} s after the second")


@pytest.mark.slow
def test_sigkill_leaves_a_whole_gallery(tmp_path: Path):
    kills, counts = 4, []
    for number in range(kills):
        with server(tmp_path) as studio:
            studio.whole()
            jobs = [studio.draw(3, n=24, seed=100 * number) for _ in range(2)]
            studio.wait_for_stored(jobs[0], 1 + 2 * number)
            studio.process.kill()
            studio.process.wait()
    with server(tmp_path) as studio:
        counts = studio.whole()
        assert len(counts) >= 16
        studio.wait_for(studio.draw(2, seed=999), "done")
        assert len(studio.whole()) == len(counts) + 1
    record("studio", "SIGKILL in a job", kills, kills, f"{len(counts)} pictures, all complete")


@pytest.mark.slow
def test_a_full_disk_costs_the_gallery_a_picture_and_no_more(tmp_path: Path):
    """The limit of the size of files stands for the disk; it is lifted again."""
    with server(tmp_path) as studio:
        studio.wait_for(studio.draw(2), "done")
        pid = studio.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        about = studio.wait_for(studio.draw(2, seed=1), "done", "failed")
        assert about["state"] == "done", about
        (picture,) = about["pictures"]
        assert picture["stored"] is None and picture["url"]
        assert any("could not be stored" in warning for warning in about["warnings"]), about
        assert studio.whole() and len(studio.gallery()) == 1
        answer = studio.ask("/v1/images/generations", {"prompt": PROMPT, "num_inference_steps": 2})
        assert answer["data"][0]["b64_json"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        about = studio.wait_for(studio.draw(2, seed=1), "done")
        assert about["pictures"][0]["stored"] in studio.whole()
        assert len(studio.gallery()) == 2
        studio.process.send_signal(signal.SIGTERM)
        assert studio.process.wait(DRAIN_LIMIT) == 0
    record("studio", "disk full in the gallery", 1, 1, "drawn and said; stored again afterwards")


TRAIN = (
    *("train", "--recipe", "mock", "--max_steps", "60", "--dataset_size", "64"),
    *("--log_interval", "5", "--save_interval", "30", "--evaluation.images", "0"),
    *("--sampling.steps", "2"),
)


def trained(folder: Path, *words: str, kill_studio: bool = False) -> tuple[Path, str]:
    """Trains in a process of its own, and returns the newest checkpoint and the output."""
    folder.mkdir()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pinxit", *TRAIN, *words],
            cwd=folder, env=environment(), stdout=log, stderr=log,
        )  # fmt: skip
    if kill_studio:
        url = address_in(folder / "log.txt", process)
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "no studio"
                time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if b"pinxit.serve.beside" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
    assert process.wait(400) == 0, (folder / "log.txt").read_text()[-2000:]
    return max(folder.glob("runs/*/checkpoints/step_*")), (folder / "log.txt").read_text()


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Waits for the line with the studio's address, and returns the address."""
    deadline = time.monotonic() + 120
    while "studio: http" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return log.read_text().partition("studio: ")[2].partition("/#")[0]


@pytest.mark.slow
def test_a_training_is_the_same_beside_a_studio_that_dies(tmp_path: Path):
    alone, _ = trained(tmp_path / "alone")
    beside, output = trained(tmp_path / "beside", "--studio", "0", kill_studio=True)
    assert "the studio has ended, and the training goes on" in output
    expected, arrays = arrays_of_checkpoint(alone), arrays_of_checkpoint(beside)
    assert set(expected) == set(arrays)
    assert all((expected[name] == arrays[name]).all() for name in expected)
    record("studio", "killed beside a training", 1, 1, f"{len(expected)} arrays equal, exit 0")
