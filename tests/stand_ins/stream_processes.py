"""A streamed run of several processes of `pinxit train`, on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pinxit.train.metric_rows import read_rows

ROOT = Path(__file__).parents[2]
PATIENCE = 500.0
"""Seconds: of a busy machine."""


class StreamProcesses:
    """Some processes that stream the table `path` together."""

    def __init__(
        self,
        name: str,
        count: int,
        bundle: Path,
        path: Path,
        folder: Path,
        *more: str,
        apart: bool = False,
        kind: str = "coyo",
    ) -> None:
        """With `apart`, each process but the first has a folder of its own, such as another
        host's."""
        self.folder = folder / name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = f"""-m pinxit train --dataset_name {kind} --dataset_path {path} --name {name}
            --output_dir . --preset debug --text_encoder {bundle} --vae {bundle}
            --image_size 16 --batch_size 4 --log_interval 2 --save_interval 3 --sample_interval 0
            --sampling.steps 1 --sampling.seeds 0 --evaluation.images 10 --evaluation.prompts 0
            --images.workers 1 --images.max_repeats 0""".split()
        if kind == "coyo":
            command += [
                "--fetch.allow_networks",
                "127.0.0.0/8",
                "--fetch.timeout",
                "20",
                "--fetch.retries",
                "0",
                "--fetch.concurrency",
                "8",
                "--fetch.per_host",
                "8",
                "--filters.min_side",
                "64",
            ]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            # what compiles fast is good enough here
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true",
        }
        self.processes = []
        for number in range(count):
            place = f"""--distributed.coordinator 127.0.0.1:{port} --distributed.timeout 30
                --distributed.processes {count} --distributed.process_id {number}""".split()
            home = folder / f"host-{number}" if apart and number else folder
            home.mkdir(exist_ok=True)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command, *more, *(place if count > 1 else [])],
                    env=environment,
                    cwd=home,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def wait_for_step(self, step: int) -> None:
        """Until a checkpoint of that step, or of a later one, is there."""
        started = time.time()
        while self.processes[0].poll() is None and time.time() < started + PATIENCE:
            if any(number >= step for number in self.steps()):
                return
            time.sleep(0.01)
        raise AssertionError(f"no step {step}: {self.ended(1)}")

    def steps(self) -> list[int]:
        """The steps of the checkpoints."""
        return sorted(int(p.name[5:]) for p in (self.folder / "checkpoints").glob("step_*"))

    def ended(self, timeout: float = PATIENCE) -> tuple[list[int], list[str]]:
        """Exit codes, and what was said on stderr."""
        try:
            said = [process.communicate(timeout=timeout)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], said


def position(folder: Path) -> dict[str, Any]:
    """The position in the newest checkpoint."""
    newest = max((folder / "checkpoints").glob("step_*"))
    return json.loads((newest / "run.json").read_text())["loader_position"]


def outcomes(folder: Path) -> list[dict[str, str]]:
    """The lines of all processes' logs up to the newest checkpoint."""
    lines = []
    for process, size in position(folder)["logged"].items():
        name = "outcomes.jsonl" if process == "0" else f"outcomes-{process}.jsonl"
        if size:
            data = (folder / name).read_bytes()[:size]
            lines += [json.loads(line) for line in data.splitlines()]
    return lines


def times_ended(folder: Path) -> Counter[str]:
    """How often each row has ended."""
    return Counter(line["key"] for line in outcomes(folder))


def losses(folder: Path) -> list[int]:
    """The steps of the rows of metrics."""
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]
