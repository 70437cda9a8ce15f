"""Checkpoints survive `kill -9` at any file operation and flipped bits, and fit any mesh."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from drill_table import record
from toys import assert_trees_equal, make, run_steps

from pinxit.train.checkpoint import Checkpoints

STAND_INS = Path(__file__).parents[1] / "stand_ins"
FLIPS = 200


def state_after(steps: int) -> Any:
    """Returns a state of Muon on the host."""
    return jax.device_get(run_steps(*make(name="muon"), steps)[0])


def stand_in(name: str, *arguments: str, devices: int = 1) -> str:
    """Runs a program of the stand-ins and returns its output."""
    environment = os.environ | {
        "PYTHONPATH": f"{STAND_INS.parents[1]}:{STAND_INS}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}" if devices > 1 else "",
    }
    command = [sys.executable, str(STAND_INS / f"{name}.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two states that `killed_save` reads."""
    folder = tmp_path_factory.mktemp("states")
    (folder / "states.pickle").write_bytes(pickle.dumps((state_after(2), state_after(4))))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "arguments", "fault", "least"),
    [
        ("alone", ("next",), "kill -9 before each file operation of a save", 40),
        (
            "alone",
            ("again",),
            "kill -9 before each file operation of a save over the same step",
            40,
        ),
        ("together", ("0", "1"), "kill -9 of process 0 of two before each of its operations", 40),
        ("together", ("1", "1"), "kill -9 of process 1 of two before each of its operations", 15),
    ],
)
def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_state(
    task: str, arguments: tuple[str, ...], fault: str, least: int, states: Path
):
    results = json.loads(stand_in("killed_save", task, str(states), *arguments))
    kills = sum(results.values())
    survived = results["old"] + results["new"]
    evidence = (
        f"the next process restores, bit-equal, the state before ({results['old']} times) or the "
        f"new one ({results['new']}), and nothing else is left"
    )
    record("checkpoints", fault, kills, survived, evidence)
    assert kills >= least and survived == kills, results
    assert results["old"] and (results["new"] or arguments == ("1", "1")), results


@pytest.mark.slow
def test_every_flipped_bit_is_noticed_and_the_step_before_is_used(tmp_path: Path):
    before, after = state_after(2), state_after(4)
    checkpoints = Checkpoints(tmp_path)
    for state in (before, after):
        checkpoints.save(state, {"step": int(state.step)})
        checkpoints.wait()
    checkpoints.choose(4, "raw")
    folder, damaged = tmp_path / "step_00000004", tmp_path / "damaged_step_00000004"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 8
    rng, survived = random.Random(0), 0
    for number in range(FLIPS):
        victim = files[number % len(files)]
        original = victim.read_bytes()
        data = bytearray(original)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)
        restored = checkpoints.restore(before)
        assert restored is not None
        survived += restored.step == 2 and len(restored.problems) == 1 and damaged.is_dir()
        assert_trees_equal(restored.state, before)
        damaged.rename(folder)
        victim.write_bytes(original)
    restored = checkpoints.restore(before)
    assert restored is not None and restored.step == 4
    evidence = f"noticed in each of {len(files)} files; the step before is restored, bit-equal"
    record("checkpoints", "a flipped bit in a file of a checkpoint", FLIPS, survived, evidence)
    assert survived == FLIPS


@pytest.mark.slow
def test_a_checkpoint_of_any_mesh_fits_any_mesh():
    results = json.loads(stand_in("on_eight", "from_any_mesh_to_any", devices=8))
    evidence = (
        "meshes of 1, 2, 4 and 8 devices with data, fsdp and tensor axes, stored whole and in "
        "pieces: all arrays are bit-equal"
    )
    record("checkpoints", "saved on one mesh, restored on another", *results, evidence)
    assert results[0] == results[1] == 2 * 8 * 8


@pytest.mark.slow
def test_a_checkpoint_of_any_number_of_processes_fits_any_other(states: Path):
    equal = json.loads(stand_in("killed_save", "between_processes", str(states)))["equal"]
    evidence = "1 to 2, 2 to 1, and 2 to 2 processes with four devices: all arrays are bit-equal"
    record("checkpoints", "saved by some processes, restored by others", 3, equal, evidence)
    assert equal == 3
