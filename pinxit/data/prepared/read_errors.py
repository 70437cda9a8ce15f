"""Errors of this machine while a shard is read, which say nothing about the shard itself.

Only a missing file, a wrong size or a wrong SHA-256 is damage. Everything else (too many open
files, a failing disk, a missing permission, a share that does not answer) is an `OSError`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Error numbers that closing other files may cure."""
ADVICE = {
    errno.EMFILE: "this process may open too few files: raise the limit (`ulimit -n 65536`)",
    errno.ENFILE: "this machine may open too few files: raise fs.file-max",
    errno.ENOMEM: "this machine is out of memory: close other programs",
    errno.EIO: "the disk or its connection fails: check it (`dmesg`)",
    errno.EACCES: "this user may not read it: check the permissions",
    errno.EPERM: "this user may not read it: check the permissions",
    errno.ESTALE: "the shared folder has changed on its server: mount it again",
}
"""The remedy by error number."""
NAMED = (*ADVICE, errno.EBUSY, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN, errno.EREMOTEIO)


def errno_in(message: str) -> int | None:
    """Returns the error number that a message describes in words, or None.

    The reader of ArrayRecord reports errors of the operating system only in its message.
    """
    return next((code for code in NAMED if os.strerror(code) in message), None)


def read_problem(error: OSError, path: Path) -> str:
    """Describes an error in one line: its name, the file, and what to do."""
    code = error.errno or errno.EIO
    name = errno.errorcode.get(code, str(code))
    words = error.strerror or str(error)
    remedy = ADVICE.get(code, "check the disk or the shared folder")
    return f"{path} is unreadable: {name} ({words}); {remedy}"
