"""Several processes train as one, stop together, end together, and go on together."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_processes import PATIENCE, TrainProcesses

from pinxit.config import UsageError
from pinxit.devices import processes as distributed
from pinxit.devices.processes import DistributedConfig, group
from pinxit.train.metric_rows import read_rows

STEPS = 60


class Processes(TrainProcesses):
    """Some processes that train on mock together."""

    def __init__(
        self,
        name: str,
        count: int,
        bundle: Path,
        folder: Path,
        *more: str,
        each: dict[int, list[str]] | None = None,
    ) -> None:
        self.folder = folder / name
        command = f"""--dataset_name mock --name {name} --output_dir {folder} --preset debug
            --text_encoder {bundle} --vae {bundle} --image_size 16
            --dataset_size 24 --batch_size 4 --steps {STEPS} --log_interval 2 --save_interval 9
            --sampling.steps 1 --sampling.seeds 0 --evaluation.images 10 --evaluation.prompts 0
            --optimizer.name muon""".split()
        super().__init__(count, [*command, *more], each=each)

    def wait_for_rows(self, count: int) -> None:
        """Until process 0 itself has logged so many rows."""
        path = self.folder / "metrics.jsonl"
        first = None
        started = time.time()
        while self.processes[0].poll() is None and time.time() < started + PATIENCE:
            if path.exists() and path.stat().st_mtime > started:
                rows = len(read_rows(path))
                first = rows if first is None else first
                if rows >= first + count:
                    return
            time.sleep(0.002)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [
        (row["step"], row["loss"]) for row in read_rows(folder / "metrics.jsonl") if "loss" in row
    ]


def train_together(count: int, mesh: str, bundle: Path, folder: Path) -> None:
    """A run of several processes that is stopped, killed and resumed, beside one of one."""
    alone = Processes("alone", 1, bundle, folder)
    codes, said = alone.ended()
    assert codes == [0], said

    def start() -> Processes:
        return Processes("together", count, bundle, folder, "--mesh", mesh)

    stopped = start()
    stopped.wait_for_rows(3)
    stopped.processes[-1].send_signal(signal.SIGTERM)
    codes, said = stopped.ended()
    assert codes == [0] * count, said
    assert "the same command resumes" in said[0] and said[1:] == [""] * (count - 1), said
    step = int(next((stopped.folder / "checkpoints").glob("step_*")).name.removeprefix("step_"))
    assert 6 <= step < STEPS

    killed = start()
    killed.wait_for_rows(5)
    killed.processes[-1].kill()
    begun = time.time()
    codes, said = killed.ended()
    assert all(codes) and time.time() - begun < 150, (codes, said)

    resumed = start()
    codes, said = resumed.ended()
    assert codes == [0] * count, said
    assert "resuming after step" in said[0] and said[1:] == [""] * (count - 1), said
    assert (resumed.folder / "report.html").is_file()
    expected, found = losses(alone.folder), losses(resumed.folder)
    assert [step for step, _ in found] == [step for step, _ in expected]
    np.testing.assert_allclose([x for _, x in found], [x for _, x in expected], rtol=0, atol=1e-5)

    # one process goes on with what several have done, and has nothing left to do
    again = Processes("together", 1, bundle, folder)
    codes, said = again.ended()
    assert codes == [0] and "is finished" in said[0], said


@pytest.mark.slow
def test_two_processes_train_as_one(bundle: Path, tmp_path: Path):
    train_together(2, "fsdp=2", bundle, tmp_path)


@pytest.mark.slow
def test_four_processes_train_as_one(bundle: Path, tmp_path: Path):
    train_together(4, "data=2,fsdp=2", bundle, tmp_path)


def test_an_error_of_the_first_ends_all_with_one_line(bundle: Path, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    codes, said = Processes("taken", 2, bundle, tmp_path).ended()
    assert codes == [2, 2], said
    assert said[0].count("\n") == 1 and "is not a run" in said[0] and said[1] == ""


def test_settings_that_differ_end_all(bundle: Path, tmp_path: Path):
    started = time.time()
    both = Processes("differ", 2, bundle, tmp_path, each={1: ["--learning_rate", "0.5"]})
    codes, said = both.ended()
    assert codes == [2, 2] and time.time() - started < PATIENCE / 2, said
    assert "optimizer: " in said[0] and "the value on process 1" in said[0] and said[1] == ""


def test_an_address_that_does_not_answer_is_waited_for_as_long_as_the_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nothing listens there
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        config = DistributedConfig(address, processes=2, process_id=1, timeout=1)
        started = time.monotonic()
        with pytest.raises(UsageError, match=r"coordinator: .*not answering for 1 seconds"):
            distributed.initialise(config)
        assert 1 <= time.monotonic() - started < 10


def test_addresses_are_checked():
    config = DistributedConfig(coordinator="10.0.0.1:1234", processes=2, process_id=1)
    found = group(config, {})
    assert found is not None and found["process_id"] == 1 and found["num_processes"] == 2
    for wrong, says in (
        ({"coordinator": "10.0.0.1"}, "coordinator.*HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2}, "process_id.*missing"),
        ({"coordinator": "a:1", "processes": 2, "process_id": 2}, "process_id.*0 to 1"),
        ({"processes": 2}, "processes.*not allowed with --distributed.coordinator auto"),
        ({"timeout": 0}, "timeout"),
    ):
        with pytest.raises(UsageError, match=rf"distributed\.{says}"):
            DistributedConfig(**wrong)  # type: ignore[arg-type]


def slurm(**more: str) -> dict[str, Any] | None:
    environ = {
        "SLURM_JOB_ID": "12345",
        "SLURM_STEP_ID": "2",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NUM_NODES": "4",
        "SLURM_STEP_NODELIST": "gpu[007-010],other3",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "0",
    }
    return group(DistributedConfig(), environ | more)


def test_slurm_is_found():
    found = slurm(CUDA_VISIBLE_DEVICES="0,1,2,3")
    assert found is not None
    host, port = found["coordinator_address"].split(":")
    assert host == "gpu007" and 61_440 <= int(port) < 65_536
    assert (found["num_processes"], found["process_id"]) == (4, 3)
    assert "local_device_ids" not in found  # a task for a node: all of its devices
    tasks = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "node4"}
    found = slurm(**tasks, CUDA_VISIBLE_DEVICES="0,1")
    assert found is not None and found["local_device_ids"] == [1]
    assert found["coordinator_address"].startswith("node4:")
    found = slurm(**tasks, CUDA_VISIBLE_DEVICES="3")
    assert found is not None and "local_device_ids" not in found
    assert slurm(SLURM_STEP_NUM_TASKS="1") is None
    assert group(DistributedConfig(coordinator="off"), {"SLURM_STEP_NUM_TASKS": "4"}) is None


def test_tpu_pods_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed.glob, "glob", lambda pattern: ["/dev/accel0"])
    monkeypatch.setattr(distributed, "find_spec", lambda name: object())
    answers = iter(["t1v-0,t1v-1", "t1v-0", ""])
    monkeypatch.setattr(distributed, "_metadata", lambda: next(answers))
    auto = DistributedConfig()
    assert [group(auto, {}) for _ in range(3)] == [{}, None, None]
    assert group(auto, {"TPU_WORKER_HOSTNAMES": "a,b"}) == {}
    assert group(auto, {"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert group(auto, {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "a,b"}) is None
