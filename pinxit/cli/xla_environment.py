"""Sets environment variables that make XLA faster, before anything heavy is imported.

XLA on CPU allocates and frees large temporaries in every step. With glibc's defaults their pages
return to the kernel and must be faulted in again. Huge pages and no trimming prevent this, in the
main thread at least (`pinxit.callers_thread`). But glibc reads these settings only when a process
starts, so they are set and the same command is restarted once. Fusions for the YNN library are
turned off too, so that XLA's own programs compute matrix products and convolutions, until
`cpu_products` has measured which is faster for a run. `benchmarks/cpu_environment.py` measures the
effect of each setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from pinxit.config import choice
from pinxit.user_cache import user_cache

GUARD = "PINXIT_STARTED"
"""The variable that is set for the restarted process, so that it does not restart again."""
OFF = "PINXIT_NO_REEXEC"
"""The variable that prevents the restart: `PINXIT_NO_REEXEC=1`."""

CPU_MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
NO_YNN = "--xla_cpu_experimental_ynn_fusion_type="
"""The flag in `XLA_FLAGS` with an empty list of operations to fuse for YNN. XLA rejects unknown
flags, so this flag must exist in all versions of JAX that the package allows."""
YNN_PRODUCTS = f"{NO_YNN}LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
"""The same flag with matrix products for YNN, each for itself, and sums. JAX 0.10 does the same
without a flag."""
PRODUCTS = "PINXIT_PRODUCTS"
"""The variable with the library for matrix products: xla, ynn, or auto, which measures (see
`cpu_products`)."""
LIBRARIES = {"xla": NO_YNN, "ynn": YNN_PRODUCTS}
"""The flag for each library."""
AUTO = "auto"

GPU_MEMORY = "0.92"
"""Share of a GPU's memory that JAX may use. Its own default is 0.75."""


def prepare_environment() -> None:
    """Turns on JAX's persistent compilation cache, gives JAX most of a GPU's memory, and turns off
    XLA's log lines at start-up. Variables that are set keep their values."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache("xla")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", GPU_MEMORY)


def tuned(environ: Mapping[str, str], *, platform: str, libc: str) -> dict[str, str] | None:
    """Returns the environment to restart with, or None if no restart is needed."""
    if platform != "linux" or libc != "glibc" or environ.get(OFF, "0") not in ("", "0"):
        return None
    if GUARD in environ or any(name in environ for name in CPU_MALLOC):
        return None
    return {**environ, **CPU_MALLOC, **_products(environ), GUARD: "1"}


def _products(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that choose a library for products. The user's own flag stays."""
    flags = environ.get("XLA_FLAGS", "")
    if NO_YNN in flags:
        return {}
    library = environ.get(PRODUCTS) or AUTO
    choice(PRODUCTS, library, (AUTO, *LIBRARIES))
    flag = LIBRARIES.get(library, NO_YNN)
    return {"XLA_FLAGS": f"{flags} {flag}".strip(), PRODUCTS: library}


def restart_tuned() -> None:
    """Restarts this program in the `tuned` environment if that helps, otherwise returns."""
    import platform

    environ = tuned(os.environ, platform=sys.platform, libc=platform.libc_ver()[0])
    if environ is None or not _cpu_only():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, environ)


def _cpu_only() -> bool:
    """Returns whether JAX will run on the CPU, without importing it."""
    from importlib.util import find_spec

    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "libtpu")
    return not any(find_spec(name) for name in plugins)
