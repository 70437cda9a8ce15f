"""Where the files of a source are: a file, a folder, a glob, an fsspec URL, or the hub.

A listing is sorted by name and has a revision: the hub's commit, or a fingerprint of all names and
sizes, so that a dataset that changed between two runs is noticed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pinxit.config import UsageError
from pinxit.data.sources.hub import SCHEME, is_hub_name, list_hub, open_hub, parse_hub_path

MAGIC = frozenset("*?[")
TRAINING = frozenset({"train", "training"})
HELD_OUT = frozenset({"test", "testing", "validation", "valid", "val", "eval", "dev"})
SHOWN = 8
"""How many names an error lists."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source."""

    name: str
    """Below what was asked for, with slashes: what the order and the fingerprint go by."""
    path: str
    """As `open_file` takes it."""
    size: int | None
    """Bytes; None where the server does not tell."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source, sorted by name."""

    files: tuple[File, ...]
    revision: str
    """A commit of the hub, or "files-" and 16 hex digits of names and sizes."""


def list_files(
    path: str, *, suffixes: Sequence[str], form: str, revision: str | None = None
) -> Listing:
    """The files at `path` that end in one of `suffixes`.

    `form` says in words what the files must be, for messages. Raises ValueError where there is
    nothing to list, with what is there instead.
    """
    local = os.path.exists(os.path.expanduser(path))
    if not local and (path.startswith("pipe:") or "::" in path):
        raise UsageError(f"path: {path!r} names a command or a chain of file systems: refused")
    if path.startswith(SCHEME) or (not local and _is_hub_name(path, suffixes)):
        return _list_hub(path, revision, suffixes=suffixes, form=form)
    if revision is not None:
        raise UsageError(f"revision: {revision!r} is for datasets of the hub, not for {path!r}")
    found = _list_local(path) if local or "://" not in path else _list_remote(path)
    if not found:
        raise UsageError(f"path: there is no {path!r}; it takes {form}, or a hub dataset's name")
    files = _wanted(found, suffixes, path, form)
    return Listing(tuple(files), files_fingerprint(files))


def files_fingerprint(files: Sequence[File]) -> str:
    """ "files-" and 16 hex digits, the same for the same names and sizes wherever they are."""
    text = "".join(f"{file.name}\t{file.size}\n" for file in files)
    return f"files-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def without_held_out(files: Sequence[File], *, folders: bool = False) -> tuple[File, ...]:
    """All but the test and validation splits, where some file is of a training split.

    A split shows as a word of the name (``train-00000.parquet``, ``test/0.parquet``), or, with
    `folders`, as the name of the first folder alone.
    """
    words = {
        file.name: {file.name.partition("/")[0].lower()}
        if folders
        else set(re.split(r"[/_.-]", file.name.lower()))
        for file in files
    }
    if not any(words[file.name] & TRAINING for file in files):
        return tuple(files)
    return tuple(
        file for file in files if words[file.name] & TRAINING or not words[file.name] & HELD_OUT
    )


def open_file(path: str, *, stream: bool = False) -> io.IOBase:
    """A file for reading bytes; `stream` promises to read it once, from beginning to end."""
    if path.startswith(SCHEME):
        return open_hub(path, stream=stream)
    if "://" in path:
        import fsspec

        fs, place = fsspec.core.url_to_fs(path)
        return fs.open(place, "rb")
    return open(path, "rb")


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Makes every network fault inside an OSError, and has each name `path`."""
    try:
        yield
    except network_faults(path) as error:
        raise OSError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        if error.filename is not None or path in str(error):
            raise
        raise OSError(f"{path} cannot be read: {error}") from error


def network_faults(path: str) -> tuple[type[Exception], ...]:
    """What the clients that read `path` may raise and that is no OSError."""
    if "://" not in path:
        return ()
    from aiohttp import ClientError
    from huggingface_hub.errors import HTTPError

    return ClientError, HTTPError


def _is_hub_name(path: str, suffixes: Sequence[str]) -> bool:
    """Whether a path that does not exist can be meant as a dataset of the hub."""
    misspelt = path.lower().endswith(tuple(suffixes)) or os.path.isdir(path.partition("/")[0])
    return is_hub_name(path) and not misspelt


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _folder_of_glob(pattern: str) -> str:
    """The part of a pattern before the first folder that has a wildcard."""
    plain = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return plain.rpartition("/")[0]


def _wanted(found: list[File], suffixes: Sequence[str], path: str, form: str) -> list[File]:
    if len(found) == 1 and found[0].name == os.path.basename(path.rstrip("/")):
        return found  # named by hand: its name may be anything
    ends = tuple(suffix.lower() for suffix in suffixes)
    files = [file for file in found if file.name.lower().endswith(ends)]
    if not files:
        names = ", ".join(file.name for file in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UsageError(
            f"path: {path!r} holds no {' or '.join(suffixes)} file ({form}); it holds {names}{more}"
        )
    return sorted(files, key=lambda file: file.name)


def _list_hub(path: str, revision: str | None, *, suffixes: Sequence[str], form: str) -> Listing:
    where = parse_hub_path(path, revision)
    if where is None:
        raise UsageError(f"path: {path!r} is no hub path; valid: hf://datasets/owner/name")
    commit, found = list_hub(where, form=form)
    root = f"{SCHEME}datasets/{where.repo}@{commit}/"
    files = [File(name, root + name, size) for name, size in found if not _is_hidden(name)]
    if not files:
        raise UsageError(f"path: {path!r} at commit {commit} holds no files")
    return Listing(tuple(_wanted(files, suffixes, path, form)), commit)


def _list_local(path: str) -> list[File]:
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(full):
        return [_local(full, os.path.dirname(full))]
    if os.path.isdir(full):
        return [_local(found, full) for found in _walk(full)]
    names = glob.glob(full, recursive=True)
    root = _folder_of_glob(full)
    return [_local(found, root) for found in sorted(names) if os.path.isfile(found)]


def _local(path: str, root: str) -> File:
    return File(Path(path).relative_to(root).as_posix(), path, os.path.getsize(path))


def _walk(root: str) -> Iterator[str]:
    """Files below a folder: not the hidden ones, and not through linked folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _list_remote(url: str) -> list[File]:
    import fsspec

    try:
        fs, place = fsspec.core.url_to_fs(url)
        if not MAGIC.isdisjoint(place):
            entries, root = fs.glob(place, detail=True), _folder_of_glob(place)
        elif fs.isfile(place):
            entries, root = {place: fs.info(place)}, place.rpartition("/")[0]
        else:
            entries, root = fs.find(place, detail=True), place
    except (OSError, ImportError, ValueError, *network_faults(url)) as error:
        raise UsageError(f"path: {url!r} cannot be listed: {error}") from error
    files = [(name, entry) for name, entry in entries.items() if entry["type"] == "file"]
    start = root.rstrip("/") + "/"
    return [
        File(name.removeprefix(start), fs.unstrip_protocol(name), entry.get("size"))
        for name, entry in sorted(files)
        if not _is_hidden(name.removeprefix(start))
    ]
