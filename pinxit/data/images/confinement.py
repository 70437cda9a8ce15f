"""Keeps a decoding process from secrets and from the network.

A decoder of bytes from the web may have faults that let these bytes take it over. So its process
gets a short list of environment variables, which hold no tokens and passwords. On Linux it also
gives up the network: it moves to a network namespace of its own, which has no connections.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping

PASSED = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        *("PYTHONHOME", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONMALLOC"),
        *("LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT"),
        *("MALLOC_ARENA_MAX", "LD_PRELOAD", "NUMBER_OF_PROCESSORS"),
    }
)
"""The environment variables that a decoding process gets, apart from those of the locale."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def decoder_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of a decoding process."""
    passed = {
        name: value
        for name, value in environment.items()
        if name.upper() in PASSED or name.startswith("LC_")
    }
    return passed | ONE_THREAD


def leave_network() -> bool:
    """Takes the network from this process for ever (Linux), and returns whether that worked.

    It works in a process with one thread, and not where user namespaces are forbidden.
    """
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):  # a C library without unshare
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        # a privileged process needs no user namespace, and some systems forbid these
        return any(unshare(flags) == 0 for flags in (CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNET))
    return False
