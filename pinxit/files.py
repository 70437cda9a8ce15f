"""Atomic writing: an interrupted write never leaves an incomplete file or folder under its name.

A file is written under a temporary name in the same folder, synced to the disk, and renamed. Then
the folder is synced. A process killed at any moment leaves the old file, the new one, or none, and
at worst a leftover called ``.<name>.<digits>.partial``, which `sweep` removes. The digits are
random, because processes in several containers may share both a folder and a process id.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pinxit.plain_json import plain_values

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers that mean a full disk, an exceeded quota, or a file above the size limit."""
PARTIAL = ".partial"
"""The suffix of an unfinished file or folder."""
BEFORE = ".before"
"""The suffix of an old folder while a new one replaces it."""


class DiskFull(OSError):
    """The disk or a quota has no room for a file, whose incomplete part was removed."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact}; free some space and run the same command again")
        self.fact = fact
        """The file, the reason, and the free space."""

    def __reduce__(self) -> tuple[type[DiskFull], tuple[str]]:
        return DiskFull, (self.fact,)


def disk_full(path: Path, error: OSError | str) -> DiskFull:
    """Returns the error for a file that did not fit on the disk."""
    reason = error if isinstance(error, str) else error.strerror or str(error)
    free = shutil.disk_usage(path.parent).free / 2**30
    return DiskFull(f"{path} could not be written: {reason} ({free:.2f} GiB free)")


def sync(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(path: Path) -> Path:
    """Returns a new name beside `path` that no other process uses and `sweep` removes."""
    return path.with_name(f".{path.name}.{secrets.randbelow(10**12):012d}{PARTIAL}")


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _unfinished(path: Path, temporary: Path) -> Iterator[None]:
    """Removes the unfinished file or folder after an error, and raises `DiskFull` if it applies."""
    try:
        yield
    except OSError as error:
        _remove(temporary)
        if error.errno in FULL:
            raise disk_full(path, error) from error
        raise
    except BaseException:
        _remove(temporary)
        raise


@contextlib.contextmanager
def whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary path to write to, which is renamed to `path` if the block succeeds.

    Raises `DiskFull` if the disk or a quota is full. The unfinished file is removed after any
    error. Without `replace`, raises FileExistsError if `path` exists by the time of the rename.
    A `path` that is not a regular file (``/dev/stdout``) is written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with _unfinished(path, temporary):
        yield temporary
        sync(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _rename_to_free(temporary, path)
        sync(path.parent)


def _rename_to_free(temporary: Path, path: Path) -> None:
    """Renames the file unless `path` exists, which raises FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # this file system has no links: create the name first, then replace it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)
    else:
        temporary.unlink()


def append(path: Path, text: str) -> None:
    """Appends a text to a file. If that fails, the file has its old content.

    Raises `DiskFull` if the disk or a quota is full.
    """
    rest = memoryview(text.encode())
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    size = os.fstat(handle).st_size
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
    except BaseException as error:
        os.ftruncate(handle, size)
        if isinstance(error, OSError) and error.errno in FULL:
            raise disk_full(path, error) from error
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_set(folder: Path, *names: str) -> Iterator[list[Path]]:
    """Yields temporary paths for several files that are valid only together.

    Readers accept the set if the last file exists. That file is removed before the first one
    changes and renamed after all others, so that no reader combines files of two sets. The folder's
    other files stay as they are.
    """
    with contextlib.ExitStack() as stack:
        paths = [folder / name for name in names]
        folder.mkdir(parents=True, exist_ok=True)
        temporaries = [temporary_name(path) for path in paths]
        for path, temporary in zip(paths, temporaries, strict=True):
            stack.enter_context(_unfinished(path, temporary))
        yield temporaries
        for temporary in temporaries:
            sync(temporary)
        if paths[-1].exists():
            paths[-1].unlink()
            sync(folder)
        for path, temporary in zip(paths, temporaries, strict=True):
            os.replace(temporary, path)
        sync(folder)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder to fill, which replaces `path` if the block succeeds.

    A process killed between the two renames leaves the old folder under another name, and
    `restore_folder` puts it back. Raises the same errors as `whole`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with _unfinished(path, temporary), contextlib.ExitStack() as lock:
        temporary.mkdir()
        lock.enter_context(_locked(temporary))
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            sync(entry)
        before = path.with_name(f".{path.name}{BEFORE}")
        if path.exists():
            shutil.rmtree(before, ignore_errors=True)
            os.rename(path, before)
        try:
            os.rename(temporary, path)
        except OSError:
            restore_folder(path)
            raise
        sync(path.parent)
        shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder while this process fills it, if the file system can. A killed process releases
    its locks, so `is_being_filled` tells a folder in use from one that was left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Locks an open folder. Returns False if another process holds it, None without such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks on folders
        return None
    return True


def is_being_filled(folder: Path) -> bool | None:
    """Returns whether a process fills the unfinished folder now; None if that cannot be told."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        free = _lock(handle)
    finally:
        os.close(handle)
    return None if free is None else not free


def restore_folder(path: Path) -> None:
    """Puts back the folder that a killed process was about to replace."""
    before = path.with_name(f".{path.name}{BEFORE}")
    if before.is_dir() and not path.exists():
        os.rename(before, path)


def remove_folder(path: Path) -> None:
    """Removes a folder. A process killed meanwhile leaves no incomplete folder under its name."""
    temporary = temporary_name(path)
    try:
        os.rename(path, temporary)
    except OSError:  # gone, or a disk that lets nothing be changed: it stays as it is
        return
    shutil.rmtree(temporary, ignore_errors=True)


def move_into(path: Path, folder: Path) -> Path:
    """Moves a file or folder into another folder on the same file system, which is created.

    Raises FileExistsError if that has an entry of this name. Returns the new path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.exists():
        raise FileExistsError(errno.EEXIST, "already there", str(target))
    os.rename(path, target)
    sync(folder)
    sync(path.parent)
    return target


def write_json(
    path: Path, value: Any, *, sort_keys: bool = True, indent: int = 1, allow_nan: bool = False
) -> None:
    """Writes a value as JSON atomically, after `plain_values`. Equal values give equal bytes."""
    text = json.dumps(
        plain_values(value),
        indent=indent,
        sort_keys=sort_keys,
        ensure_ascii=False,
        allow_nan=allow_nan,
    )
    with whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def unfinished(name: str) -> str | None:
    """Returns the final name of an unfinished file, or None for any other file."""
    if not (name.startswith(".") and name.endswith(PARTIAL)):
        return None
    stem, _, digits = name[1 : -len(PARTIAL)].rpartition(".")
    return stem if stem and digits.isdigit() else None


def last_write(folder: Path, name: str) -> float:
    """Returns when the unfinished files and folders of this final name were last written to, in
    seconds since 1970; 0 if there are none."""
    newest = 0.0
    for path in folder.iterdir():
        if unfinished(path.name) == name:
            for file in (path, *(path.rglob("*") if path.is_dir() else ())):
                with contextlib.suppress(FileNotFoundError):
                    newest = max(newest, file.stat().st_mtime)
    return newest


def sweep(folder: Path, mine: Callable[[str], bool] = lambda name: True) -> int:
    """Removes unfinished files whose final name `mine` accepts, and returns their number.

    `mine` must not accept files that a running process is writing.
    """
    removed = 0
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            final = unfinished(entry.name)
            if final is not None and mine(final):
                _remove(Path(entry.path))
                removed += 1
    return removed
