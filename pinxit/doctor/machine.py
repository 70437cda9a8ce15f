"""Checks of the machine: devices, memory, processors, disk, caches, limits and huge pages."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pinxit.devices.device_figures import counted_kinds
from pinxit.devices.hardware import capability_of, cgroup_number
from pinxit.doctor.child_process import ChildFailed, ask
from pinxit.doctor.report_line import Line, ok, problem, size, warning
from pinxit.doctor.software import accelerators
from pinxit.extras import extra_command
from pinxit.processor import usable_cores

PROBE_SECONDS = 60.0
"""Seconds after which a device counts as not answering."""
LEAST_MEMORY = 4e9
"""Free bytes of memory below which there is a warning."""
LEAST_DISK = 5e9
"""Free bytes of disk below which there is a warning."""
SLOW_DISK = 20e6
"""Bytes per second below which checkpoints are slow to write."""
WRITTEN = 32 * 2**20
"""Bytes written to measure a disk's speed."""
LEAST_FILES = 4096
"""Open files that streaming needs, with a margin."""
LEAST_SHARED = 128 * 2**20
"""Bytes of shared memory below which there is a warning."""


def devices() -> Iterator[Line]:
    """Checks which devices JAX has and whether each computes correctly."""
    try:
        answer = ask("pinxit.doctor.device_probe", timeout=PROBE_SECONDS)
    except ChildFailed as error:
        advice = (
            "check whether another program uses the device, and whether JAX_PLATFORMS=cpu works"
        )
        yield problem("devices", f"JAX cannot compute here: {error}", advice)
        return
    yield from judged(answer)
    present = accelerators()
    if answer["backend"] == "cpu" and present and not os.environ.get("JAX_PLATFORMS"):
        extra, path = next(iter(present.items()))
        message = f"this machine has {path}, but JAX computes on the CPU"
        advice = f"{extra_command(extra)}; if it is installed, check the driver (nvidia-smi) and "
        advice += "whether another process holds the device"
        yield warning("devices", message, advice)


def judged(answer: dict[str, Any]) -> Iterator[Line]:
    """Turns the answer of `pinxit.doctor.device_probe` into lines."""
    kinds = [device["kind"] for device in answer["devices"]]
    if not kinds:
        yield problem("devices", f"{answer['backend']} has no devices", "check JAX_PLATFORMS")
        return
    each = counted_kinds(kinds)
    wrong = [device["id"] for device in answer["devices"] if not device["right"]]
    if wrong:
        message = f"{each}: a product of small integers is wrong on devices {wrong}"
        yield problem("devices", message, "do not train here: the hardware or its driver is broken")
        return
    seconds = max(device["seconds"] for device in answer["devices"])
    limit = answer["devices"][0].get("bytes_limit")
    memory = f", {size(limit)} each for programs" if limit else ""
    message = (
        f"{answer['backend']}: {each}{memory}; all compute correctly (in {seconds:.2f} s or less)"
    )
    yield ok("devices", message)
    old = [d for d in answer["devices"] if capability_of(d.get("compute_capability")) < 8.0]
    if old:
        message = f"{old[0]['kind']} has no bfloat16"
        yield ok("precision", f"{message}: --use_amp 1 means float16 with loss scaling here")


def memory() -> Iterator[Line]:
    """Checks the free memory of the host, within a container's limit."""
    system = psutil.virtual_memory()
    limit = cgroup_number("memory.max")
    total = min(system.total, limit or system.total)
    free = min(system.available, total)
    message = f"{size(free)} free of {size(total)}"
    if limit is not None and limit < system.total:
        message += f" (a container's limit; the machine has {size(system.total)})"
    if free < LEAST_MEMORY:
        advice = "lower --images.memory_mb and --images.workers, or close other programs"
        yield warning("memory", message, advice)
    else:
        yield ok("memory", message)


def processors() -> Iterator[Line]:
    """Checks how many cores this process may use."""
    count = usable_cores()
    message, quota = f"{count} cores", _quota()
    if quota is not None and quota < count:
        advice = f"set --images.workers to {max(1, int(quota))}: more would only share these cores"
        yield warning("processors", f"{message}, of which the container may use {quota:g}", advice)
    else:
        yield ok("processors", message)


def _quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota.isdigit() else None


def disk(folder: Path) -> Iterator[Line]:
    """Checks the free space and the write speed of the disk that runs are written to."""
    existing = folder.absolute()
    while not existing.is_dir():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    message = f"{folder}: {size(free)} free"
    if not os.access(existing, os.W_OK):
        yield problem(
            "disk",
            f"{existing} is not writable",
            "choose another --output_dir, or change its permissions",
        )
        return
    speed = write_speed(existing) if free > 4 * WRITTEN else None
    if speed is not None:
        message += f", written at {size(speed)}/s"
    if free < LEAST_DISK:
        advice = "free some space: a checkpoint takes 12 bytes per parameter and 4 per average"
        yield warning("disk", message, advice)
    elif speed is not None and speed < SLOW_DISK:
        yield warning("disk", message, "raise --save_interval, or put --output_dir on a local disk")
    else:
        yield ok("disk", message)


def write_speed(folder: Path) -> float | None:
    """Measures the bytes per second, flushed to the disk; None if the folder is not writable."""
    block = os.urandom(2**20)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".pinxit-doctor-") as file:
            start = time.perf_counter()
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return WRITTEN / (time.perf_counter() - start)
    except OSError:
        return None


def caches() -> Iterator[Line]:
    """Checks whether compiled programs and downloaded weights can be cached."""
    xla = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    yield from writable("compiled programs", Path(xla) if xla else None)
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    yield from writable("downloaded weights", Path(hub))


def writable(what: str, folder: Path | None) -> Iterator[Line]:
    """Checks whether a cache folder, or its nearest existing parent, is writable."""
    if folder is None:
        yield warning("cache", f"{what} are not cached: every start compiles again")
        return
    existing = folder.expanduser()
    while not existing.exists():
        existing = existing.parent
    if existing.is_dir() and os.access(existing, os.W_OK):
        yield ok("cache", f"{what}: {folder}")
    else:
        variable = "JAX_COMPILATION_CACHE_DIR" if "compiled" in what else "HF_HOME"
        advice = f"change its permissions, or choose another folder with {variable}=DIR"
        yield problem("cache", f"{what}: {existing} is not writable", advice)


def limits() -> Iterator[Line]:
    """Checks the limits on open files, address space and shared memory."""
    try:
        import resource
    except ImportError:
        yield ok("limits", "this system has no such limits")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        most = hard if hard != resource.RLIM_INFINITY else LEAST_FILES
        advice = f"run ulimit -n {max(soft, min(most, 65536))} before `pinxit`, or lower "
        advice += "--fetch.concurrency"
        yield warning("limits", f"{soft} open files", advice)
    else:
        yield ok("limits", f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} open files")
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        message = f"address space is limited to {size(space)}"
        yield warning(
            "limits", message, "run ulimit -v unlimited: compilers and mapped files need more"
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).total
        if room < LEAST_SHARED:
            advice = "in Docker, use --shm-size=8g: Ray and several GPUs need it"
            yield warning("shared memory", f"/dev/shm holds {size(room)}", advice)
        else:
            yield ok("shared memory", f"/dev/shm holds {size(room)}")


def huge_pages() -> Iterator[Line]:
    """Checks whether the kernel has huge pages, which make CPU training a fifth faster."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    try:
        chosen = path.read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return
    if chosen == "never":
        advice = f"echo madvise | sudo tee {path} makes training on CPUs about a fifth faster"
        yield warning("huge pages", "disabled in the kernel", advice)
    else:
        yield ok("huge pages", chosen)
