"""A streamed run of several processes of `pinxit train`, on this machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from train_processes import PATIENCE, TrainProcesses

from pinxit.train.metric_rows import read_rows


class StreamProcesses(TrainProcesses):
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
        command = f"""--dataset_name {kind} --dataset_path {path} --name {name}
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
        homes = {n: folder / f"host-{n}" if apart and n else folder for n in range(count)}
        for home in homes.values():
            home.mkdir(exist_ok=True)
        super().__init__(count, [*command, *more], homes=homes)

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


def logged_steps(folder: Path) -> list[int]:
    """The steps of the rows of metrics."""
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]
