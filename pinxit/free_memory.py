"""Returns memory that is free inside the process to the system.

glibc keeps what is freed. XLA's compiler leaves some hundred megabytes behind, in pieces that the
program's large arrays do not fit into, so the process would need both at once.
"""

from __future__ import annotations

import ctypes
import functools
import os

COMPILED = "/jax/core/compile/backend_compile_duration"
"""The event that JAX reports when a program is compiled, or read from the cache."""
WORTHWHILE = 0.2
"""Seconds of compiling from which memory is returned; it takes some milliseconds."""


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
    if event == COMPILED and duration_secs > WORTHWHILE:
        return_free_memory()
