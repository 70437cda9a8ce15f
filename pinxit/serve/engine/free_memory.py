"""Returns memory that is free inside the process to the system."""

from __future__ import annotations

import ctypes
import os


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
