"""Start-up: the environment that XLA wants, set before anything heavy is imported.

XLA on CPU allocates and frees large temporaries in every step; with glibc's defaults their pages go
back to the kernel and fault in again. Huge pages and no trimming make that cheaper, but glibc reads
these settings only when a process starts, so the launcher sets them and starts the same command
over, once. It also leaves matrix products and convolutions to Eigen, which fusions for the YNN
library would take. `benchmarks/cpu_environment.py` measures what each of these is worth.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

GUARD = "PINXIT_STARTED"
"""Set in the environment of the second start, so that there is no third."""
OFF = "PINXIT_NO_REEXEC"
"""`PINXIT_NO_REEXEC=1` keeps the process as it is."""

CPU_MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
NO_YNN = "--xla_cpu_experimental_ynn_fusion_type="
"""Of `XLA_FLAGS`: the kinds of operations that are fused for YNN, none. XLA refuses flags that it
does not know, so this is for the versions of JAX that the package allows."""


def prepare_environment() -> None:
    """Compiled programs are kept between runs, and XLA's start-up chatter is off."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinxit" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def tuned(environ: Mapping[str, str], *, platform: str, libc: str) -> dict[str, str] | None:
    """The environment to start over with, or None to go on as we are."""
    if platform != "linux" or libc != "glibc" or environ.get(OFF, "0") not in ("", "0"):
        return None
    if GUARD in environ or any(name in environ for name in CPU_MALLOC):
        return None
    flags = environ.get("XLA_FLAGS", "")
    if NO_YNN not in flags:  # where the user gave it a value, that stays
        flags = f"{flags} {NO_YNN}".strip()
    return {**environ, **CPU_MALLOC, "XLA_FLAGS": flags, GUARD: "1"}


def restart_tuned() -> None:
    """Starts this program over in the `tuned` environment, where that helps, or returns."""
    import platform

    environ = tuned(os.environ, platform=sys.platform, libc=platform.libc_ver()[0])
    if environ is None or not _cpu_only():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, environ)


def _cpu_only() -> bool:
    """Whether JAX will run on the CPU, judged without importing it."""
    from importlib.util import find_spec

    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted:
        return wanted.split(",")[0] == "cpu"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "libtpu")
    return not any(find_spec(name) for name in plugins)
