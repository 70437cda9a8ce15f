"""SIGTERM during each phase of a run: a checkpoint where there is a state, exit code 0, in time.

The resumed run must end like one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slow_phase
from drill_table import record
from small_run import arrays_of, rows_without_times, same_arrays, small_run, train_here

from pinxit.config import to_json
from pinxit.devices.processes import DistributedConfig
from pinxit.train.metric_rows import read_rows
from pinxit.train.settings import TrainConfig

LIMIT = 15.0
"""Seconds from the signal to the end of the last process."""
PHASES = {
    "sampling": 4,
    "evaluation": 4,
    "saving": 4,
    "compiling": 0,
    "encoding": 0,
    "waiting for data": 6,
}
"""The step of the last checkpoint that must be there after the signal, by phase."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    result, output = train_here(small_run(bundle, tmp_path_factory.mktemp("whole")))
    assert result.status == "finished", output
    return result.folder


def start(config: TrainConfig, phase: str, folder: Path, count: int) -> list[subprocess.Popen[str]]:
    """Starts the processes of a run with a slow phase. The markers are MARKER0, MARKER1, ..."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = []
    for number in range(count):
        if count > 1:
            group = DistributedConfig(f"127.0.0.1:{port}", count, number, timeout=100)
            config = dataclasses.replace(config, distributed=group)
        path = folder / f"config{number}.json"
        path.write_text(json.dumps(to_json(config)))
        command = [sys.executable, slow_phase.__file__, str(path), phase]
        processes.append(
            subprocess.Popen(
                [*command, str(folder / f"marker{number}")],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_arrives(phase: str, count: int, whole: Path, bundle: Path, tmp_path: Path):
    if count == 2 and phase == "waiting for data":
        pytest.skip("the other process has started the step, and no state can be saved")
    config = small_run(bundle, tmp_path)
    folder = tmp_path / config.name
    processes = start(config, phase, tmp_path, count)
    try:
        begun = time.monotonic()
        while not (tmp_path / "marker0").exists() and time.monotonic() - begun < 300:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        while phase == "waiting for data" and len(read_rows(folder / "metrics.jsonl")) < 3:
            time.sleep(0.05)  # batches are read ahead of the steps
        time.sleep(0.5)
        processes[-1].send_signal(signal.SIGTERM)  # with two processes, the other one
        begun = time.monotonic()
        output = [process.communicate(timeout=120)[1] for process in processes]
        seconds = time.monotonic() - begun
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, output
    assert "the same command resumes" in output[0], output
    steps = sorted(int(path.name[5:]) for path in folder.glob("checkpoints/step_*"))
    last, later = max(steps, default=0), 2 * (count - 1) + 2 * (phase == "saving")
    # several processes agree two steps later, and saving goes on while the next steps run
    assert PHASES[phase] <= last <= PHASES[phase] + later, steps
    result, said = train_here(config)
    assert result.status == "finished", said
    if count == 1:
        assert same_arrays(arrays_of(folder, 12), arrays_of(whole, 12))
        assert rows_without_times(folder) == rows_without_times(whole)
    assert all((folder / "samples" / f"step_{n:08d}.png").is_file() for n in (4, 8, 12))
    times = f"exit code 0 after {seconds:.1f} s, checkpoint of step {max(steps, default=0)}"
    record("signals", f"SIGTERM, {phase}, {count} process{'es' * (count > 1)}", 1, 1, times)
    assert seconds < LIMIT, output
