"""Lists and opens the files of a source: a file, a folder, a glob, an fsspec URL or the hub.

A listing is sorted by name and has a revision: the commit on the hub, or a fingerprint of all names
and sizes. A dataset that changes between two runs is detected by its revision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.data.network_fault import client_errors
from pinxit.data.sources.file_names import is_hidden, printable
from pinxit.data.sources.hub import (
    SCHEME,
    hub_info,
    is_hub_name,
    list_hub,
    open_hub,
    parse_hub_path,
)
from pinxit.data.sources.local_files import LocalFiles, find_local
from pinxit.data.sources.unused_lines import unused_line
from pinxit.data.stores.file_systems import EXTRAS, protocol_of, shared_file_system
from pinxit.data.stores.store_errors import store_error

MAGIC = frozenset("*?[")
TRAINING = frozenset({"train", "training"})
HELD_OUT = frozenset({"test", "testing", "validation", "valid", "val", "eval", "dev"})
GONE = (401, 403, 404, 410)
"""Statuses of answers that say that a file is not there, or not for this user."""
SHOWN = 8
"""The most file names that an error message lists."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source: its name, path and size."""

    name: str
    """The path relative to the requested one, with slashes. Order and fingerprint depend on it."""
    path: str
    """The path or URL in the form that `open_file` takes."""
    size: int | None
    """The size in bytes; None if the server does not report it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source, sorted by name."""

    files: tuple[File, ...]
    revision: str
    """A commit on the hub, or the result of `files_fingerprint`."""
    others: tuple[str, ...] = ()
    """The names of the files with other suffixes, sorted."""
    unused: tuple[str, ...] = ()
    """One line for each kind of file that is not read, with its number and an example."""


@dataclass(frozen=True, slots=True)
class Place:
    """The files that lie at a path, whatever their suffix."""

    files: list[File]
    hidden: Sequence[str] = ()
    """The names of the hidden files, which are not read."""
    unused: tuple[str, ...] = ()


def list_files(
    path: str, *, suffixes: Sequence[str], form: str, revision: str | None = None
) -> Listing:
    """Returns the files at `path` whose names end in one of `suffixes`.

    `form` describes the expected files, for error messages. Raises ValueError if there are none;
    the message names the files that are there instead.
    """
    local = os.path.exists(os.path.expanduser(path))
    if not local and (path.startswith("pipe:") or "::" in path):
        raise UsageError(
            f"dataset_path: {path!r} is refused: it names a command or a chain of filesystems"
        )
    if path.startswith(SCHEME) or (not local and _is_hub_name(path, suffixes)):
        return _list_hub(path, revision, suffixes=suffixes, form=form)
    if revision is not None:
        raise UsageError(
            f"dataset_revision: {revision!r} applies to datasets on the hub, not to {path!r}"
        )
    place = _list_local(path) if local or "://" not in path else _list_remote(path)
    if not place.files:
        raise UsageError(
            f"dataset_path: {path!r} does not exist; valid: {form}, or a dataset on the hub"
        )
    files, others = _select(place.files, suffixes, path, form)
    unused = (*_hidden_line(place, suffixes), *place.unused)
    return Listing(files, files_fingerprint(files), others, unused)


def files_fingerprint(files: Sequence[File]) -> str:
    """Returns "files-" and 16 hex digits, a hash of all names and sizes but not of the location."""
    text = "".join(f"{file.name}\t{file.size}\n" for file in files)
    return f"files-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]}"


def without_held_out(listing: Listing, *, folders: bool = False) -> Listing:
    """Returns a listing without test and validation splits, if any file is of a training split.

    A split is recognised by a word in the name (``train-00000.parquet``, ``test/0.parquet``) or,
    with `folders`, only by the name of the first folder, if all first folders are called like
    splits: beside ``car`` and ``bus``, the folder ``train`` is a class.
    """
    splits = {file.name: _splits_of(file.name, folders=folders) for file in listing.files}
    words = set().union(*splits.values())
    others = {file.name.partition("/")[0].lower() for file in listing.files if "/" in file.name}
    if not words & TRAINING or (folders and others - TRAINING - HELD_OUT):
        return listing
    held_out = [
        file.name
        for file in listing.files
        if splits[file.name] & HELD_OUT and not splits[file.name] & TRAINING
    ]
    if not held_out:
        return listing
    names = ", ".join(sorted(set().union(*(splits[name] for name in held_out))))
    line = unused_line(
        held_out,
        f"file of the split {names} is not read",
        f"files of the {'split' if ',' not in names else 'splits'} {names} are not read",
        advice="; name them in --dataset_path to read them",
    )
    dropped = set(held_out)
    files = tuple(file for file in listing.files if file.name not in dropped)
    return dataclasses.replace(listing, files=files, unused=(*listing.unused, *line))


def _splits_of(name: str, *, folders: bool) -> set[str]:
    """Returns the words of a name that are called like a split."""
    if folders:
        folder, slash, _ = name.lower().partition("/")
        words = {folder} if slash else set()
    else:
        words = set(re.split(r"[/_.-]", name.lower()))
    return words & (TRAINING | HELD_OUT)


def open_file(path: str, *, stream: bool = False, exact: bool = False) -> io.IOBase:
    """Opens a file for reading bytes.

    With `stream`, the caller promises to read it once, from beginning to end. With `exact`, a
    remote file is requested by exactly the ranges that are read, without reading ahead.
    """
    if path.startswith(SCHEME):
        return open_hub(path, stream=stream, exact=exact)
    if "://" in path:
        fs, location = shared_file_system(path)
        with _true_cause(path):
            if exact:
                with contextlib.suppress(TypeError):  # a few file systems have no such setting
                    return fs.open(location, "rb", cache_type="none")
            return fs.open(location, "rb")
    return open(path, "rb")


def remote_info(path: str) -> dict[str, Any]:
    """Returns the facts that a server states about a remote file: its size, and marks of its
    version. Their names differ between servers."""
    if path.startswith(SCHEME):
        return hub_info(path)
    fs, location = shared_file_system(path)
    with _true_cause(path):
        return fs.info(location)


@contextlib.contextmanager
def _true_cause(path: str) -> Iterator[None]:
    """Raises the error of the network where fsspec says that a file does not exist because its
    server gave no answer, or a fault of its own."""
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, network_faults(path)) and getattr(cause, "status", 0) not in GONE:
            raise cause from error.__context__
        raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Converts every network error inside to an OSError whose message names `path`, and those of
    object stores to one that says what to set."""
    try:
        yield
    except network_faults(path) as error:
        if protocol_of(path) in EXTRAS:
            raise store_error(error, path, "read") from error
        raise OSError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        if error.filename is not None or path in str(error):
            raise
        if protocol_of(path) in EXTRAS:
            raise store_error(error, path, "read") from error
        raise OSError(f"{path} cannot be read: {error}") from error


def network_faults(path: str) -> tuple[type[Exception], ...]:
    """Returns the exceptions besides OSError that the clients that read `path` may raise."""
    return client_errors() if "://" in path else ()


def _is_hub_name(path: str, suffixes: Sequence[str]) -> bool:
    """Returns whether a path that does not exist locally may be a dataset on the hub."""
    looks_local = path.lower().endswith(tuple(suffixes)) or os.path.isdir(path.partition("/")[0])
    return is_hub_name(path) and not looks_local


def _folder_of_glob(pattern: str) -> str:
    """Returns the part of a pattern before the first folder with a wildcard."""
    plain = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return plain.rpartition("/")[0]


def _select(
    listed: list[File], suffixes: Sequence[str], path: str, form: str
) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """Returns the files with one of the suffixes and the names of the others, both sorted.

    Raises if there is no such file.
    """
    if len(listed) == 1 and listed[0].name == os.path.basename(path.rstrip("/")):
        return tuple(listed), ()  # the path is this file, so that any suffix is accepted
    ends = tuple(suffix.lower() for suffix in suffixes)
    files = [file for file in listed if file.name.lower().endswith(ends)]
    if not files:
        names = ", ".join(printable(file.name) for file in listed[:SHOWN])
        more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
        raise UsageError(
            f"dataset_path: {path!r} holds no {' or '.join(suffixes)} file ({form}); it holds "
            f"{names}{more}"
        )
    others = sorted(file.name for file in listed if not file.name.lower().endswith(ends))
    return tuple(sorted(files, key=lambda file: file.name)), tuple(others)


def _hidden_line(place: Place, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Returns the line about hidden files with one of the suffixes."""
    ends = tuple(suffix.lower() for suffix in suffixes)
    names = sorted(name for name in place.hidden if name.lower().endswith(ends))
    return unused_line(names, "hidden file is not read", "hidden files are not read")


def _visible(files: Sequence[File]) -> Place:
    """Returns the files of a remote place, of which some are hidden."""
    visible = [file for file in files if not is_hidden(file.name)]
    return Place(visible, [file.name for file in files if is_hidden(file.name)])


def _list_hub(path: str, revision: str | None, *, suffixes: Sequence[str], form: str) -> Listing:
    where = parse_hub_path(path, revision)
    if where is None:
        raise UsageError(
            f"dataset_path: {path!r} is not a hub path; valid: hf://datasets/owner/name"
        )
    commit, entries = list_hub(where, form=form)
    root = f"{SCHEME}datasets/{where.repo}@{commit}/"
    place = _visible([File(name, root + name, size) for name, size in entries])
    if not place.files:
        raise UsageError(f"dataset_path: {path!r} at commit {commit} holds no files")
    files, others = _select(place.files, suffixes, path, form)
    return Listing(files, commit, others, _hidden_line(place, suffixes))


def _list_local(path: str) -> Place:
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(full):
        return Place([_local(full, os.path.dirname(full))])
    if os.path.isdir(full):
        listed = find_local(full)
        return Place([_local(file, full) for file in listed.files], listed.hidden, _links(listed))
    names = glob.glob(full, recursive=True)
    root = _folder_of_glob(full)
    return Place([_local(name, root) for name in sorted(names) if os.path.isfile(name)])


def _local(path: str, root: str) -> File:
    return File(Path(path).relative_to(root).as_posix(), path, os.path.getsize(path))


def _links(listed: LocalFiles) -> tuple[str, ...]:
    """Returns the lines about names in a folder that lead to nothing or back into it."""
    return (
        *unused_line(
            listed.broken,
            "link that leads nowhere or special file is not read",
            "links that lead nowhere or special files are not read",
        ),
        *unused_line(
            listed.loops,
            "linked folder is not read, since it contains this folder",
            "linked folders are not read, since they contain this folder",
        ),
    )


def _is_file(fs: Any, location: str) -> bool:
    """Returns whether a URL leads to a file. fsspec would request all of it over HTTP."""
    if not location.startswith(("http://", "https://")):
        return fs.isfile(location)
    try:
        with _true_cause(location):
            return fs.info(location)["type"] == "file"
    except FileNotFoundError:
        return False


def _list_remote(url: str) -> Place:
    try:
        fs, location = shared_file_system(url)
        if not MAGIC.isdisjoint(location):
            entries, root = fs.glob(location, detail=True), _folder_of_glob(location)
        elif _is_file(fs, location):
            entries, root = {location: fs.info(location)}, location.rpartition("/")[0]
        else:
            entries, root = fs.find(location, detail=True), location
    except (OSError, ImportError, ValueError, *network_faults(url)) as error:
        reason: object = error
        if protocol_of(url) in EXTRAS and not isinstance(error, ValueError):
            reason = store_error(error, url, "listed").strerror or error
        raise UsageError(f"dataset_path: {url!r} cannot be listed: {reason}") from error
    files = [(name, entry) for name, entry in entries.items() if entry["type"] == "file"]
    start = root.rstrip("/") + "/"
    return _visible(
        [
            File(name.removeprefix(start), fs.unstrip_protocol(name), entry.get("size"))
            for name, entry in sorted(files)
        ]
    )
