"""Finds the files below a local folder. Linked folders are followed, each folder is read once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pinxit.config import UsageError
from pinxit.data.sources.file_names import is_hidden, printable


@dataclass
class LocalFiles:
    """The files below a folder."""

    files: list[str] = field(default_factory=list)
    """The paths of the files that are not hidden."""
    hidden: list[str] = field(default_factory=list)
    """The names of hidden files and of files in hidden folders, relative to the folder."""
    broken: list[str] = field(default_factory=list)
    """The names of links to nothing, pipes and devices."""
    loops: list[str] = field(default_factory=list)
    """The names of links to a folder that contains the folder itself."""


def find_local(root: str) -> LocalFiles:
    """Returns the files below the folder `root`.

    The folders that really lie in it come first, so that a link to one of them adds nothing. Raises
    UsageError if a folder cannot be listed.
    """
    listed = LocalFiles()
    seen: set[str] = set()
    pending = [root]
    while pending:
        start = pending.pop(0)
        real = os.path.realpath(start)
        if start != root and _contains(real, os.path.realpath(root)):
            listed.loops.append(os.path.relpath(start, root))
        elif real not in seen:
            pending += _walk(start, root, seen, listed)
    return listed


def _walk(start: str, root: str, seen: set[str], listed: LocalFiles) -> list[str]:
    """Adds the files below a folder to `listed`, and returns the linked folders in it."""
    links = []
    for folder, folders, names in os.walk(start, onerror=_refuse):
        seen.add(os.path.realpath(folder))
        inside = []
        for name in sorted(folders):
            path = os.path.join(folder, name)
            if is_hidden(name):
                listed.hidden += _hidden_files(path, root)
            elif os.path.islink(path):
                links.append(path)
            elif os.path.realpath(path) not in seen:
                inside.append(name)
        folders[:] = inside
        for name in sorted(names):
            path = os.path.join(folder, name)
            if is_hidden(name):
                listed.hidden.append(os.path.relpath(path, root))
            elif os.path.isfile(path):
                listed.files.append(path)
            else:
                listed.broken.append(os.path.relpath(path, root))
    return links


def _hidden_files(folder: str, root: str) -> list[str]:
    """Returns the names of the files below a hidden folder, as far as it can be listed."""
    return [
        os.path.relpath(os.path.join(inner, name), root)
        for inner, _, names in os.walk(folder)
        for name in names
    ]


def _contains(folder: str, other: str) -> bool:
    """Returns whether `other` is this folder or lies below it. Both are real paths."""
    return other == folder or other.startswith(folder.rstrip(os.sep) + os.sep)


def _refuse(error: OSError) -> None:
    path = printable(str(error.filename))
    raise UsageError(
        f"dataset_path: the folder {path} cannot be listed ({error.strerror}); make it readable, "
        "or move it out of the dataset"
    ) from error
