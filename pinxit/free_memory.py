"""Returns memory that is free inside the process to the system.

glibc keeps what is freed. XLA's compiler leaves some hundred megabytes behind, in pieces that the
program's large arrays do not fit into, so the process would need both at once.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os

COMPILED = "/jax/core/compile/backend_compile_duration"
"""The event that JAX reports when a program is compiled, or read from the cache."""
READ = "/jax/compilation_cache/cache_retrieval_time_sec"
"""The event that JAX reports when a program is read from the cache."""
WORTHWHILE = {COMPILED: 0.2, READ: 0.02}
"""Seconds from which memory is returned, by event. Returning it takes some milliseconds. Before a
program is read, its weights may have been, and these leave free memory behind too."""


def return_free_memory() -> bool:
    """Asks the C library to return free memory, and tells whether it has such a function.

    Threads that allocate and free arrays of many sizes leave gaps in the heap of glibc, which only
    grows without this.
    """
    if os.name != "posix":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True


@functools.cache
def return_after_compiling() -> None:
    """Makes this process return the compiler's memory after each program, from now on."""
    import jax.monitoring

    jax.monitoring.register_event_duration_secs_listener(_compiled)


def _compiled(event: str, duration_secs: float, **_: str | int) -> None:
    if duration_secs > WORTHWHILE.get(event, math.inf):
        return_free_memory()
