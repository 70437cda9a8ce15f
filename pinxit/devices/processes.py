"""Runs one program in several processes: how they connect, agree, and wait for process 0.

Each process (a host of a TPU pod, a Slurm task, a command with an address) runs the same code on
its own devices, and `jax.distributed` joins the devices into one mesh. All processes run every
computation on the mesh, in the same order. Process 0 alone creates folders, writes files and
prints, and sends its results to the others (`alone`).

If a process dies, the others end with an error once it has not sent a heartbeat for `timeout`
seconds, or as soon as a connection to it breaks. The same command then resumes the run.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

import jax
from jax._src import distributed as runtime  # the key-value store has no public API

from pinxit.config import UsageError, positive
from pinxit.plain_json import plain_values

T = TypeVar("T")


class Stopped(BaseException):
    """Raised when a signal ends work that leaves nothing to save."""


POLL = 0.2
"""Seconds between two reads of the key-value store while waiting."""
STOP = "pinxit/stop"
"""The key under which a process passes a signal on to the others."""
METADATA = (
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
    "worker-network-endpoints"
)
"""The URL at which a machine in Google's cloud finds the other hosts of its TPU."""


@dataclass(frozen=True)
class DistributedConfig:
    """The settings with which the processes of one run find each other."""

    coordinator: str = "auto"
    """HOST:PORT at which the other processes reach process 0. With auto, TPU pods and Slurm are
    detected, and anything else is one process. With off, there is one process."""
    processes: int | None = None
    """The number of processes, required with HOST:PORT."""
    process_id: int | None = None
    """The number of this process, from 0, required with HOST:PORT."""
    timeout: int = 100
    """Seconds to wait for the other processes at the start, and without a heartbeat after which a
    process counts as dead and all processes end."""

    def __post_init__(self) -> None:
        """Checks that the settings fit together."""
        positive("distributed.timeout", self.timeout)
        numbers = {"processes": self.processes, "process_id": self.process_id}
        if self.coordinator in ("auto", "off"):
            for name, value in numbers.items():
                if value is not None:
                    problem = f"not allowed with --distributed.coordinator {self.coordinator}"
                    valid = "no value, or HOST:PORT of process 0 as the coordinator"
                    raise UsageError(f"distributed.{name}", value, problem=problem, valid=valid)
            return
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", self.coordinator):
            valid = "auto, off, or HOST:PORT of process 0"
            raise UsageError("distributed.coordinator", self.coordinator, valid=valid)
        for name, value in numbers.items():
            if value is None:
                problem = "missing: with HOST:PORT, set processes and process_id, too"
                raise UsageError(f"distributed.{name}", value, problem=problem)
        positive("distributed.processes", self.processes)
        assert self.processes is not None and self.process_id is not None
        if not 0 <= self.process_id < self.processes:
            valid = f"0 to {self.processes - 1}"
            problem = "not one of the processes"
            raise UsageError(
                "distributed.process_id", self.process_id, problem=problem, valid=valid
            )


# --- connecting -------------------------------------------------------------------------------


def initialise(config: DistributedConfig) -> None:
    """Connects to the other processes of this run, if there are any.

    It must be called before any device is used. Raises `UsageError` if they do not answer.
    """
    arguments = group(config, os.environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    if arguments.get("process_id"):
        _reach(arguments["coordinator_address"], config.timeout)
    # on CPUs, programs must run one at a time: gloo cannot separate the messages of two programs
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=config.timeout,
            heartbeat_timeout_seconds=config.timeout,
            shutdown_timeout_seconds=config.timeout,
        )
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        problem = f"not answering or not usable ({str(error).splitlines()[0]})"
        valid = "an address of process 0 that all processes can reach, with a free port"
        where = arguments.get("coordinator_address", config.coordinator)
        raise UsageError("distributed.coordinator", where, problem=problem, valid=valid) from error


def _reach(address: str, timeout: float) -> None:
    """Waits until process 0 listens at `address`. Raises `UsageError` after `timeout` seconds.

    JAX would end this process without a Python exception instead.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=POLL * 10).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                problem = f"not answering for {timeout:g} seconds ({error})"
                valid = "an address of process 0 that all processes can reach, with a free port"
                raise UsageError(
                    "distributed.coordinator", address, problem=problem, valid=valid
                ) from error
        time.sleep(POLL)


def disconnect() -> None:
    """Leaves the group of processes. A process that ends without it looks like one that died."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def group(config: DistributedConfig, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`, or None for a single process."""
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
    """Returns the arguments for a Slurm job step of several tasks, or None outside of one.

    Each task uses the GPUs that Slurm makes visible to it. If several tasks of a node see the same
    GPUs, each uses one.
    """
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1:
        return None
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", environ["SLURM_STEP_NODELIST"])
    assert first is not None
    host = first[1] + (first[2] or "")
    # every step of every job gets a port of its own, in the upper part of the free range
    step = int(environ["SLURM_JOB_ID"]) * 16 + int(environ.get("SLURM_STEP_ID", "0"))
    arguments: dict[str, Any] = {
        "coordinator_address": f"{host}:{61_440 + step % 4_096}",
        "num_processes": tasks,
        "process_id": int(environ["SLURM_PROCID"]),
        "cluster_detection_method": "deactivate",
    }
    visible = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if tasks > int(environ.get("SLURM_STEP_NUM_NODES", "1")) and len(visible) > 1:
        arguments["local_device_ids"] = [int(environ["SLURM_LOCALID"])]
    return arguments


def _tpu_pod(environ: Mapping[str, str]) -> bool:
    """Returns whether this host has part of a TPU that spans several hosts."""
    platforms = environ.get("JAX_PLATFORMS", "")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    if (platforms and "tpu" not in platforms) or not chips or find_spec("libtpu") is None:
        return False
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if name in environ:
            return "," in environ[name]
    return "," in _metadata() if "TPU_SKIP_MDS_QUERY" not in environ else False


def _metadata() -> str:
    """Reads the hosts of this machine's TPU from the cloud's metadata; empty elsewhere."""
    request = urllib.request.Request(METADATA, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


# --- coordinating -----------------------------------------------------------------------------


def several() -> bool:
    """Returns whether there are other processes."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this is process 0, which does everything that must be done once."""
    return jax.process_index() == 0


_numbers = itertools.count()


def alone(act: Callable[[], T], *, signal: Callable[[], str | None] = lambda: None) -> T:
    """Calls `act` on process 0 and returns its result (plain JSON) in all processes.

    All processes must make these calls in the same order. If `act` raises, process 0 raises the
    exception and the others exit without a message. `signal` returns the name of a signal that this
    process has received, if any; a waiting process passes it on to process 0.
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
        _store().key_value_set(key, json.dumps({"value": plain_values(value)}))
        return value
    answer = json.loads(awaited(key, signal))
    if "code" in answer:
        raise SystemExit(answer["code"])
    return answer["value"]


def meet(name: str, *, stop: bool = False, signal: Callable[[], str | None] = lambda: None) -> bool:
    """Waits until all processes have called it, and returns whether any of them has said `stop`.

    Each `name` can be used once per run. `signal` is as for `alone`.
    """
    answer = "stop" if stop else "here"
    publish(f"pinxit/{name}/{jax.process_index()}", answer)
    answers = [awaited(f"pinxit/{name}/{n}", signal) for n in range(jax.process_count())]
    return "stop" in answers


def asked_to_stop() -> str | None:
    """Returns the signal that a process has passed on to the others, if any."""
    return _look(STOP) if several() else None


def pass_on(signal: str) -> None:
    """Passes a signal of this process on to the others."""
    if several():
        publish(STOP, signal)


def publish(key: str, text: str) -> None:
    """Stores a text that all processes can read under this key. Threads may call it."""
    _store().key_value_set(key, text, allow_overwrite=True)


def awaited(key: str, signal: Callable[[], str | None] = lambda: None) -> str:
    """Waits for the text of a key, and passes a signal of this process on meanwhile. Threads may
    call it."""
    passed_on = False
    while (value := _look(key)) is None:
        if not passed_on and (name := signal()):
            pass_on(name)
            passed_on = True
        time.sleep(POLL)
    return value


def published(key: str) -> str | None:
    """Returns the text that a process has published under this key, or None if there is none."""
    return _look(key)


def published_under(folder: str) -> dict[str, str]:
    """Returns all texts whose keys begin with ``folder/``, by the rest of the key."""
    try:
        pairs = _store().key_value_dir_get(f"{folder}/")
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return {}
        raise
    return {key.rpartition("/")[2]: text for key, text in pairs}


def collected(key: str, text: str) -> list[str]:
    """Returns the texts of all processes on process 0, and nothing on the others.

    All processes must call it. Each `key` can be used once.
    """
    if not several():
        return [text]
    publish(f"{key}/{jax.process_index()}", text)
    if not is_first():
        return []
    texts = [awaited(f"{key}/{number}") for number in range(jax.process_count())]
    _store().key_value_delete(f"{key}/")
    return texts


def _look(key: str) -> str | None:
    """Returns the value that a process has stored under this key, or None if there is none yet."""
    try:
        return _store().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _store() -> Any:
    """Returns the key-value store that the processes share."""
    client = runtime.global_state.client
    if client is None:
        problem = "not possible: there are several processes, which are not connected"
        valid = "HOST:PORT of process 0"
        raise UsageError("distributed.coordinator", "off", problem=problem, valid=valid)
    return client


def check_same(settings: dict[str, Any], *, apart: str) -> None:
    """Ends all processes unless their settings are equal, apart from the one called `apart`.

    Process 0 raises `UsageError`, and the others exit without a message.
    """
    first = alone(lambda: settings)
    if not several():
        return
    mine = {name: value for name, value in settings.items() if name != apart}
    other = {name: value for name, value in mine.items() if value != first[name]}
    key = f"pinxit/settings/{next(_numbers)}"
    _store().key_value_set(f"{key}/{jax.process_index()}", json.dumps(other))
    for number in range(jax.process_count()):
        differences = json.loads(awaited(f"{key}/{number}"))
        for name, value in differences.items():
            if not is_first():
                raise SystemExit(2)
            problem = f"the value on process {number}, but process 0 has {first[name]!r}"
            raise UsageError(name, value, problem=problem, valid="the same on all processes")
