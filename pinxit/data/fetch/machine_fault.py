"""Tells faults of this machine from faults of a URL or of its server.

No row may be blamed for a fault of this machine, such as too many open files. It is raised, and so
it ends the unit, which is done again later. Whatever else a library raises is the row's status.
"""

from __future__ import annotations

import errno

from pinxit.files import FULL

MACHINE = FULL | {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Error numbers of this machine: too many open files, no memory, or a full disk."""
NO_THREAD = "can't start new thread"
"""The message of Python's RuntimeError for a process that has reached its limit of threads."""


def is_machine_fault(error: Exception) -> bool:
    """Returns whether an exception is a fault of this machine."""
    if isinstance(error, OSError):
        return error.errno in MACHINE
    return isinstance(error, MemoryError) or NO_THREAD in str(error)
