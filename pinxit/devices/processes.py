"""Several processes, one program: how they find one another, agree, and wait for the first.

Each process (a host of a TPU pod, a task of Slurm, a command with an address) runs the same code on
its own devices; `jax.distributed` joins these into one mesh. Everything that is computed on the
mesh is computed by all of them, in the same order. What there should be one of (folders, files,
lines on the screen) process 0 does alone, and the others learn what came of it (`alone`).

A process that dies is missed: the others end, with an error, once it has given no sign of life for
`timeout` seconds (sooner where a connection to it breaks), and the same command resumes.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as runtime  # the store of keys has no public door
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pinxit.config import UsageError, positive

T = TypeVar("T")
POLL = 0.2
"""Seconds between two looks for what process 0 has done."""
STOP = "pinxit/stop"
"""The key under which a process that waits tells process 0 of a signal."""
METADATA = (
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
    "worker-network-endpoints"
)
"""Where a machine of Google's cloud learns of the other hosts of its TPU."""
DELAY = 2
"""Steps after which all processes know of a signal: the flag travels with the steps in flight."""


@dataclass(frozen=True)
class DistributedConfig:
    """How the processes of one run find one another."""

    coordinator: str = "auto"
    """HOST:PORT of process 0, as all others reach it; auto: TPU pods and Slurm are found, anything
    else is one process; off: one process."""
    processes: int | None = None
    """How many there are; with HOST:PORT."""
    process_id: int | None = None
    """Which one this is, from 0; with HOST:PORT."""
    timeout: int = 100
    """Seconds without a sign of life after which a process is given up, and all end."""

    def __post_init__(self) -> None:
        """Refuses what does not make a group."""
        positive("distributed.timeout", self.timeout)
        given = {"processes": self.processes, "process_id": self.process_id}
        if self.coordinator in ("auto", "off"):
            for name, value in given.items():
                if value is not None:
                    problem = f"of no use with --distributed.coordinator {self.coordinator}"
                    valid = "leave it out, or give HOST:PORT of process 0"
                    raise UsageError(f"distributed.{name}", value, problem=problem, valid=valid)
            return
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", self.coordinator):
            valid = "auto, off, or HOST:PORT of process 0"
            raise UsageError("distributed.coordinator", self.coordinator, valid=valid)
        for name, value in given.items():
            if value is None:
                problem = "missing: with HOST:PORT every process is told which one of how many"
                raise UsageError(f"distributed.{name}", value, problem=problem)
        positive("distributed.processes", self.processes)
        assert self.processes is not None and self.process_id is not None
        if not 0 <= self.process_id < self.processes:
            valid = f"0 to {self.processes - 1}"
            problem = "not one of the processes"
            raise UsageError(
                "distributed.process_id", self.process_id, problem=problem, valid=valid
            )


# --- finding one another ----------------------------------------------------------------------


def initialise(config: DistributedConfig) -> None:
    """Joins the other processes of this run, where there are others; must come before anything
    touches a device. Raises `UsageError` where they do not answer."""
    found = group(config, os.environ)
    if found is None or jax.distributed.is_initialized():
        return
    # CPUs: programs run one at a time, as gloo cannot tell apart what two of them send
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            **found,
            heartbeat_timeout_seconds=config.timeout,
            shutdown_timeout_seconds=config.timeout,
        )
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        problem = f"not answering or not usable ({str(error).splitlines()[0]})"
        valid = "an address of process 0 that all processes reach, with a port that is free there"
        where = found.get("coordinator_address", config.coordinator)
        raise UsageError("distributed.coordinator", where, problem=problem, valid=valid) from error


def group(config: DistributedConfig, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be told; None where this process is alone."""
    if config.coordinator == "off":
        return None
    if config.coordinator != "auto":
        return {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process_id,
            "cluster_detection_method": "deactivate",
        }
    return _slurm(environ) or ({} if _tpu_pod(environ) else None)


def _slurm(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The group of a Slurm job step of several tasks.

    Each task takes the GPUs that Slurm shows it; where several tasks of a node are shown the same
    ones, each takes one.
    """
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1:
        return None
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", environ["SLURM_STEP_NODELIST"])
    assert first is not None
    host = first[1] + (first[2] or "")
    # every step of every job has a port of its own, in the upper part of the free range
    step = int(environ["SLURM_JOB_ID"]) * 16 + int(environ.get("SLURM_STEP_ID", "0"))
    found: dict[str, Any] = {
        "coordinator_address": f"{host}:{61_440 + step % 4_096}",
        "num_processes": tasks,
        "process_id": int(environ["SLURM_PROCID"]),
        "cluster_detection_method": "deactivate",
    }
    shown = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if tasks > int(environ.get("SLURM_STEP_NUM_NODES", "1")) and len(shown) > 1:
        found["local_device_ids"] = [int(environ["SLURM_LOCALID"])]
    return found


def _tpu_pod(environ: Mapping[str, str]) -> bool:
    """Whether this host has a part of a TPU whose other parts are elsewhere."""
    platforms = environ.get("JAX_PLATFORMS", "")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    if (platforms and "tpu" not in platforms) or not chips or find_spec("libtpu") is None:
        return False
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if name in environ:
            return "," in environ[name]
    return "," in _metadata() if "TPU_SKIP_MDS_QUERY" not in environ else False


def _metadata() -> str:
    """The hosts of this machine's TPU, as the cloud tells; empty elsewhere."""
    request = urllib.request.Request(METADATA, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


# --- who does what ----------------------------------------------------------------------------


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which does what should be done once."""
    return jax.process_index() == 0


_numbers = itertools.count()


def alone(act: Callable[[], T], *, signal: Callable[[], str | None] = lambda: None) -> T:
    """What `act` returns (plain JSON) on process 0, in all processes; the others wait.

    All must come here in the same order. If `act` raises, process 0 raises that, and the others end
    without a word. `signal` says what a waiting process was sent, which it passes on.
    """
    if not several():
        return act()
    key = f"pinxit/alone/{next(_numbers)}"
    if is_first():
        try:
            value = act()
        except BaseException as error:
            code = 2 if isinstance(error, UsageError) else 1
            _store().key_value_set(key, json.dumps({"code": code}))
            raise
        _store().key_value_set(key, json.dumps({"value": value}))
        return value
    told = json.loads(_awaited(key, signal))
    if "code" in told:
        raise SystemExit(told["code"])
    return told["value"]


def meet(name: str) -> None:
    """Waits until all processes are here; each name once a run."""
    _store().key_value_set(f"pinxit/{name}/{jax.process_index()}", "here", allow_overwrite=True)
    for number in range(jax.process_count()):
        _awaited(f"pinxit/{name}/{number}", lambda: None)


def asked_to_stop() -> str | None:
    """The signal that a waiting process passed on, for process 0."""
    return _look(STOP) if several() else None


def _awaited(key: str, signal: Callable[[], str | None]) -> str:
    passed_on = False
    while (value := _look(key)) is None:
        if not passed_on and (name := signal()):
            _store().key_value_set(STOP, name, allow_overwrite=True)
            passed_on = True
        time.sleep(POLL)
    return value


def _look(key: str) -> str | None:
    """What a process has put under this key; None: nothing yet."""
    try:
        return _store().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _store() -> Any:
    """The keys and values that the processes share."""
    client = runtime.global_state.client
    if client is None:
        problem = "needed: there are several processes, which have not been told of one another"
        valid = "HOST:PORT of process 0"
        raise UsageError("distributed.coordinator", "off", problem=problem, valid=valid)
    return client


def check_same(settings: dict[str, Any], *, apart: str) -> None:
    """Ends all processes unless they were given the same settings, those `apart` excepted: process
    0 raises, and the others end without a word."""
    first = alone(lambda: settings)
    if not several():
        return
    mine = {name: value for name, value in settings.items() if name != apart}
    other = {name: value for name, value in mine.items() if value != first[name]}
    key = f"pinxit/settings/{next(_numbers)}"
    _store().key_value_set(f"{key}/{jax.process_index()}", json.dumps(other))
    for number in range(jax.process_count()):
        told = json.loads(_awaited(f"{key}/{number}", lambda: None))
        for name, value in told.items():
            if not is_first():
                raise SystemExit(2)
            problem = f"what process {number} was given, and process 0 {first[name]!r}"
            raise UsageError(name, value, problem=problem, valid="the same for all processes")


class Together:
    """A jitted step that is first run, at each shape of batch, when all processes have compiled it.

    Compilation takes one longer than another, and what connects processes is less patient than the
    store of keys.
    """

    def __init__(self, step: Any) -> None:
        self._step = step
        self._compiled: dict[Any, Any] = {}

    def __call__(self, state: Any, frozen: Any, raw: dict[str, Any]) -> Any:
        """As the step."""
        if not several():
            return self._step(state, frozen, raw)
        key = tuple(sorted((name, array.shape) for name, array in raw.items()))
        if key not in self._compiled:
            self._compiled[key] = self._step.lower(state, frozen, raw).compile()
            meet(f"compiled/{len(self._compiled)}")
        return self._compiled[key](state, frozen, raw)


class Agreement:
    """Whether any process wants to stop, known to all at the same step.

    Each call starts one small sum over the mesh and returns that of `DELAY` calls before, so
    nobody waits. All processes must call alike. One process agrees with itself at once.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._several = several()
        self._size = mesh.size
        self._cut = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._sum = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._waiting: deque[jax.Array] = deque()
        self.reached = False
        """Whether it was agreed to stop."""

    def __call__(self, wanted: bool) -> bool:
        """True once the flag of some process has come round."""
        if not self._several:
            return wanted
        self._start(wanted)
        while len(self._waiting) > DELAY:
            self._finish()
        return self.reached

    def now(self, wanted: bool) -> bool:
        """The same, with every flag up to this call; waits for the others."""
        if not self._several:
            return wanted
        self._start(wanted)
        while self._waiting:
            self._finish()
        return self.reached

    def _start(self, wanted: bool) -> None:
        flags = np.full(self._size, wanted, np.int32)
        shape = (self._size,)
        flag = jax.make_array_from_callback(shape, self._cut, lambda index: flags[index])
        self._waiting.append(self._sum(flag))

    def _finish(self) -> None:
        self.reached |= bool(np.asarray(self._waiting.popleft()) > 0)
