"""Recognises Git LFS pointers: small text files that a clone without Git LFS has in place of files.

Weights, tables and pictures are often stored in Git LFS. A clone of such a repository without it
has files with the right names and the wrong content, which every reader calls damaged.
"""

from __future__ import annotations

from pathlib import Path

BEGINNING = b"version https://git-lfs.github.com/spec/"
"""The first bytes of every pointer."""
LARGEST = 1024
"""The largest size of a pointer, in bytes, by the specification."""


def is_pointer(data: bytes) -> bool:
    """Returns whether the content of a file, or its beginning, is that of a Git LFS pointer."""
    return data.startswith(BEGINNING)


def pointer_problem(path: str | Path) -> str | None:
    """Returns what is wrong with a file if it is a Git LFS pointer, and what to do, else None."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError:
        return None
    return described_pointer(path, len(data)) if is_pointer(data) else None


def described_pointer(path: str | Path, size: int) -> str:
    """Describes a Git LFS pointer of this size, and says what to do."""
    return (
        f"{path} is a Git LFS pointer ({size} bytes), not the file itself: run `git lfs pull` in "
        "its repository, or fetch the files with `hf download OWNER/NAME --local-dir DIR`"
    )
