"""Saves checkpoints in processes that die before a chosen file operation, and reads what is left.

``python killed_save.py TASK FOLDER`` prints a JSON object. FOLDER has ``states.pickle``: two states
of the same structure, on the host. Each process is a fork of this one, which has imported
everything and has not used JAX yet, so that hundreds of them take seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pinxit.devices import partition_rules
from pinxit.devices.mesh import make_mesh, state_shardings
from pinxit.devices.processes import DistributedConfig, disconnect, initialise
from pinxit.devices.transfer import place
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.state_arrays import by_full_name, state_parts
from pinxit.train.stored_state import load_state

OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
"""The audit events that count; calls of fsync do so as well."""
OLD, NEW, NONE, FAILED = 10, 11, 12, 1
"""Exit codes: the old state was restored, the new one, no checkpoint is there, anything else."""
PATIENCE = 60.0
"""Seconds that a process may take."""
GRACE = 1.5
"""Seconds after the death of one of two processes in which the other may finish the checkpoint."""


def forked(act: Callable[[], int | None]) -> int:
    """Starts a process that calls `act` and exits with its result. Returns its id."""
    if child := os.fork():
        return child
    code = FAILED
    try:
        code = act() or 0
        disconnect()
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def exit_code(child: int, seconds: float = PATIENCE) -> int:
    """Waits for a process, which is killed after `seconds`. Returns its exit code (-9: killed)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_before(number: int, root: Path) -> None:
    """Kills this process before its `number`-th file operation in a folder from now on."""
    count, lock = itertools.count(1), threading.Lock()
    sync = os.fsync

    def happened() -> None:
        with lock:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            # a relative path is one of rmtree's, beside the handle of its folder
            if path.startswith(str(root)) or not os.path.isabs(path):
                happened()

    def synced(handle: int) -> None:
        happened()
        sync(handle)

    os.fsync = synced
    sys.addaudithook(hook)


class Drill:
    """Two states, and a folder for the checkpoints of one case."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = pickle.loads((folder / "states.pickle").read_bytes())
        self.folder = folder
        self.root = folder / "checkpoints"
        self.original = folder / "original"

    def save_old(self) -> int:
        """Saves the old state in the folder that each case begins with."""
        checkpoints = Checkpoints(self.original)
        checkpoints.save(self.old, {"which": "old"})
        checkpoints.wait()
        return 0

    def begin(self) -> None:
        """Puts the old checkpoint into the folder."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.original, self.root)

    def restored(self) -> int:
        """Does what the next process does, and returns which state that gives."""
        checkpoints = Checkpoints(self.root)
        checkpoints.clean()
        restored = checkpoints.restore(self.old)
        if restored is None:
            return NONE
        assert not restored.problems, restored.problems
        which = restored.run["which"]
        same(restored.state, self.old if which == "old" else self.new)
        entries = [entry.name for entry in self.root.iterdir()]
        assert all(entry.startswith("step_") for entry in entries), entries
        return OLD if which == "old" else NEW


def same(state: Any, expected: Any) -> None:
    """Raises unless all arrays are equal bit for bit."""
    arrays, others = by_full_name(state_parts(state)), by_full_name(state_parts(expected))
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert np.asarray(array).tobytes() == np.asarray(others[name]).tobytes(), name


def alone(folder: Path, how: str) -> dict[str, int]:
    """One process dies at each file operation of a save. Returns the number of each result.

    `how` is "next" (the checkpoint of a later step, after which the old one is removed) or "again"
    (another checkpoint of the same step).
    """
    drill = Drill(folder)
    if how == "again":
        drill.new = dataclasses.replace(drill.new, step=drill.old.step)
    assert exit_code(forked(drill.save_old)) == 0
    results = {"old": 0, "new": 0, "other": 0}
    for number in itertools.count(1):
        drill.begin()

        def save(number: int = number) -> int:
            checkpoints = Checkpoints(drill.root, keep=1)
            die_before(number, drill.root)
            checkpoints.save(drill.new, {"which": "new"}, overwrite=how == "again")
            checkpoints.wait()
            return 0

        code = exit_code(forked(save))
        result = exit_code(forked(drill.restored))
        if code == 0:
            assert result == NEW
            return results
        assert code == -signal.SIGKILL, code
        results[{OLD: "old", NEW: "new"}.get(result, "other")] += 1
    raise AssertionError


def free_port() -> int:
    """Returns a port that no process listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def join(port: int, process: int, devices: int, count: int = 2) -> Any:
    """Makes this process one of several with some devices each. Returns the mesh of all."""
    partition_rules.MINIMUM = 1
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if count > 1:
        address = f"127.0.0.1:{port}"
        initialise(DistributedConfig(address, processes=count, process_id=process, timeout=60))
    return make_mesh(f"fsdp={devices * count}", jax.devices())


def together(folder: Path, victim: str, every: str) -> dict[str, int]:
    """One of two processes dies at each `every`-th file operation of a save."""
    drill = Drill(folder)
    assert exit_code(forked(drill.save_old)) == 0
    results = {"old": 0, "new": 0, "other": 0}
    for number in itertools.count(1, int(every)):
        drill.begin()
        port = free_port()

        def save(process: int, number: int = number, port: int = port) -> int:
            mesh = join(port, process, 1)
            state = place(drill.new, state_shardings(drill.new, mesh))
            checkpoints = Checkpoints(drill.root, keep=1)
            if process == int(victim):
                die_before(number, drill.root)
            checkpoints.save(state, {"which": "new"})
            checkpoints.wait()
            return 0

        children = [forked(lambda process=process: save(process)) for process in range(2)]
        code = exit_code(children[int(victim)])
        other = exit_code(children[1 - int(victim)], PATIENCE if code == 0 else GRACE)
        result = exit_code(forked(drill.restored))
        if code == 0:
            assert (other, result) == (0, NEW), (other, result)
            return results
        assert code == -signal.SIGKILL, code
        results[{OLD: "old", NEW: "new"}.get(result, "other")] += 1
    raise AssertionError


def between_processes(folder: Path) -> dict[str, int]:
    """What two processes save, one restores, and the other way round, each on four devices."""
    drill = Drill(folder)

    def save(process: int, count: int, port: int) -> int:
        mesh = join(port, process, 4 // count, count)
        checkpoints = Checkpoints(drill.root)
        checkpoints.save(place(drill.new, state_shardings(drill.new, mesh)), {"which": "new"})
        checkpoints.wait()
        return 0

    def load(process: int, count: int, port: int) -> int:
        mesh = join(port, process, 4 // count, count)
        shardings = state_shardings(drill.new, mesh)
        state = load_state(drill.root / f"step_{int(drill.new.step):08d}", drill.new, shardings)
        expected = by_full_name(state_parts(drill.new))
        for name, array in by_full_name(state_parts(state)).items():
            for shard in array.addressable_shards:
                part = np.asarray(expected[name])[shard.index]
                assert np.asarray(shard.data).tobytes() == part.tobytes(), name
        return 0

    equal = 0
    for first, second in ((1, 2), (2, 1), (2, 2)):
        shutil.rmtree(drill.root, ignore_errors=True)
        for act, count in ((save, first), (load, second)):
            port = free_port()
            children = [forked(lambda p=p: act(p, count, port)) for p in range(count)]  # noqa: B023
            assert [exit_code(child) for child in children] == [0] * count, (act, first, second)
        writers = {path.name.split(".")[-2] for path in drill.root.glob("step_*/params.*")}
        assert len(writers) == first, "not every process wrote its part"
        equal += 1
    return {"equal": equal}


if __name__ == "__main__":
    task, place_of_states, *more = sys.argv[1:]
    print(json.dumps(globals()[task](Path(place_of_states), *more)))
