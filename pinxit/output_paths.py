"""Checks of the folders and files that commands write to, before anything is computed.

Files are written to folders of this machine, or to mounted ones. A URL of an object store would
otherwise become a local folder called ``s3:``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pinxit.config import UsageError

MOUNTED = (
    "a folder on this machine, or a mounted one in which files can be renamed: see "
    "docs/object_stores.md"
)
"""The paths that work where a URL does not."""


def has_protocol(text: str) -> bool:
    """Returns whether a text is a URL, and not the path of a local file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None


def check_local(field: str, *values: str | None, valid: str = MOUNTED) -> None:
    """Raises if a value is a URL, which files cannot be written to."""
    for value in values:
        if value is not None and has_protocol(value):
            problem = "a URL, and this command writes to folders only"
            raise UsageError(field, value, problem=problem, valid=valid)


def check_writable(field: str, value: str, folder: Path) -> None:
    """Raises unless files can be written to the folder, which need not exist yet."""
    check_local(field, value)
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    reason = "" if existing.is_dir() else "a file"
    if not reason and not os.access(existing, os.W_OK | os.X_OK):
        reason = "read-only"
    if reason:
        problem = f"not writable: {existing} is {reason}"
        valid = "a new or existing folder with write permission"
        raise UsageError(field, value, problem=problem, valid=valid)
