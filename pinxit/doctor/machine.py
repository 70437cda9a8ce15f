"""The machine: devices, memory, disks, limits, and what a CPU run wants of the kernel."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pinxit.doctor.child_process import ChildFailed, ask
from pinxit.doctor.report_line import Line, ok, problem, size, warning

PROBE_SECONDS = 60.0
"""Seconds after which a device is taken not to answer."""
LEAST_MEMORY = 4e9
LEAST_DISK = 5e9
SLOW_DISK = 20e6
"""Bytes a second under which checkpoints are slow to write."""
WRITTEN = 32 * 2**20
"""Bytes written to try a disk."""
LEAST_FILES = 4096
"""Open files that streaming needs, with room."""
LEAST_SHARED = 128 * 2**20


def devices() -> Iterator[Line]:
    """What JAX finds, and whether each device computes."""
    try:
        found = ask("pinxit.doctor.device_probe", timeout=PROBE_SECONDS)
    except ChildFailed as error:
        advice = "is another program using the device? Does JAX_PLATFORMS=cpu work?"
        yield problem("devices", f"JAX cannot compute here: {error}", advice)
        return
    yield from judged(found)


def judged(found: dict[str, Any]) -> Iterator[Line]:
    """What to say of the probe's answer."""
    kinds = [device["kind"] for device in found["devices"]]
    each = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    wrong = [device["id"] for device in found["devices"] if not device["right"]]
    if wrong:
        said = f"{each}: a product of small integers comes out wrong on {wrong}"
        yield problem("devices", said, "do not train on it: the hardware or its driver is broken")
        return
    seconds = max(device["seconds"] for device in found["devices"])
    limit = found["devices"][0].get("bytes_limit")
    memory = f", {size(limit)} each for programs" if limit else ""
    said = f"{found['backend']}: {each}{memory}; each computed rightly (at most {seconds:.2f} s)"
    yield ok("devices", said)
    old = [d for d in found["devices"] if float(d.get("compute_capability") or 9) < 8.0]
    if old:
        said = f"{old[0]['kind']} has no bfloat16"
        yield ok("precision", f"{said}: --use_amp 1 means float16 with loss scaling here")


def memory() -> Iterator[Line]:
    """The host's memory, and what a container leaves of it."""
    found = psutil.virtual_memory()
    limit = cgroup_number("memory.max")
    total = min(found.total, limit or found.total)
    free = min(found.available, total)
    said = f"{size(free)} free of {size(total)}"
    if limit is not None and limit < found.total:
        said += f" (a container's limit; the machine has {size(found.total)})"
    if free < LEAST_MEMORY:
        advice = "smaller --images.memory_mb and --images.workers, or end other programs"
        yield warning("memory", said, advice)
    else:
        yield ok("memory", said)


def processors() -> Iterator[Line]:
    """Cores that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    said, quota = f"{count} cores", _quota()
    if quota is not None and quota < (count or 1):
        advice = f"set --images.workers to {max(1, int(quota))}: more only take turns"
        yield warning("processors", f"{said}, of which a container may use {quota:g}", advice)
    else:
        yield ok("processors", said)


def cgroup_number(name: str) -> int | None:
    """A limit of the container, or None."""
    try:
        text = Path("/sys/fs/cgroup", name).read_text().split()[0]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdigit() else None


def _quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota.isdigit() else None


def disk(folder: Path) -> Iterator[Line]:
    """Room and speed where runs are written."""
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{folder}: {size(free)} free"
    if not os.access(place, os.W_OK):
        yield problem("disk", f"{place} cannot be written", "another --output_dir, or its rights")
        return
    speed = write_speed(place) if free > 4 * WRITTEN else None
    if speed is not None:
        said += f", written at {size(speed)}/s"
    if free < LEAST_DISK:
        advice = "a checkpoint is 12 bytes a parameter and 4 for each average; make room"
        yield warning("disk", said, advice)
    elif speed is not None and speed < SLOW_DISK:
        yield warning("disk", said, "a larger --save_interval, or --output_dir on a local disk")
    else:
        yield ok("disk", said)


def write_speed(folder: Path) -> float | None:
    """Bytes a second, flushed to the disk; None where nothing can be written."""
    block = os.urandom(2**20)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".pinxit-doctor-") as file:
            begun = time.perf_counter()
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return WRITTEN / (time.perf_counter() - begun)
    except OSError:
        return None


def caches() -> Iterator[Line]:
    """Whether compiled programs and downloaded weights can be kept."""
    xla = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    yield from writable("compiled programs", Path(xla) if xla else None)
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    yield from writable("downloaded weights", Path(hub))


def writable(what: str, folder: Path | None) -> Iterator[Line]:
    """Whether a cache folder, or the nearest one above it, may be written."""
    if folder is None:
        yield warning("cache", f"{what} are not kept: each start compiles anew")
        return
    place = folder.expanduser()
    while not place.exists():
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK):
        yield ok("cache", f"{what}: {folder}")
    else:
        variable = "JAX_COMPILATION_CACHE_DIR" if "compiled" in what else "HF_HOME"
        advice = f"its rights, or another folder: {variable}=DIR"
        yield problem("cache", f"{what}: {place} cannot be written", advice)


def limits() -> Iterator[Line]:
    """Open files, and shared memory."""
    try:
        import resource
    except ImportError:
        yield ok("limits", "this system has none that matter here")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        most = hard if hard != resource.RLIM_INFINITY else LEAST_FILES
        advice = f"ulimit -n {max(soft, min(most, 65536))} before `pinxit`, or smaller "
        advice += "--fetch.concurrency"
        yield warning("limits", f"{soft} open files", advice)
    else:
        yield ok("limits", f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} open files")
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        said = f"address space is limited to {size(space)}"
        yield warning("limits", said, "ulimit -v unlimited: compilers and mapped files need room")
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).total
        if room < LEAST_SHARED:
            advice = "in Docker: --shm-size=8g; Ray and several GPUs need it"
            yield warning("shared memory", f"/dev/shm holds {size(room)}", advice)
        else:
            yield ok("shared memory", f"/dev/shm holds {size(room)}")


def huge_pages() -> Iterator[Line]:
    """What CPU runs gain a fifth by."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    try:
        chosen = path.read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return
    if chosen == "never":
        advice = f"echo madvise | sudo tee {path}: training on CPUs is about a fifth faster"
        yield warning("huge pages", "off in the kernel", advice)
    else:
        yield ok("huge pages", chosen)
