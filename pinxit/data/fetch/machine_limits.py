"""Keeps the limits per host over all processes of one user on one machine.

Workers, ranks, Ray's actors and separate commands know nothing of each other, but a host sees one
machine. They share a folder in memory (``/dev/shm``, else the folder for temporary files), which
the variable PINXIT_HOST_LIMITS may name.

A slot of a host is one byte in one of a few files, at a place that follows from the hash of the
host's name. The process that uses the slot has locked this byte. The system releases the locks of a
process that dies, so no slot is ever lost. A process never waits for a lock: it tries again later.
A process that has no slot of a host at all, and waits for one, also locks the host's last byte, and
processes that have slots then leave the next one to it.

Where files cannot be locked (Windows), or no folder can be written, or with PINXIT_HOST_LIMITS set
to ``process``, the limits hold for each process by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
from pathlib import Path

from pinxit.data.fetch.shared_pauses import SharedPauses

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

VARIABLE = "PINXIT_HOST_LIMITS"
ALONE = "process"
"""The value of the variable with which the limits hold for each process by itself."""
MEMORY = Path("/dev/shm")
"""A folder in memory that does not depend on the environment of a process, on Linux."""
FILES = 32
"""Number of files with slots. The system looks through all locks of a file for each new one."""
SPAN = 2**14
"""Number of bytes that a host has, of which the last is for those who wait."""


class MachineLimits:
    """The slots and the pauses of all hosts, which threads and processes share."""

    def __init__(self, folder: Path | None) -> None:
        """Shares a folder with other processes; None limits this process alone."""
        self.folder = folder
        self.pauses = SharedPauses(folder / "pauses" if folder is not None else None)
        """The pauses that hosts asked for."""
        self.silent = SharedPauses(folder / "silent" if folder is not None else None)
        """The requests that hosts have not answered."""
        self._lock = threading.Lock()
        self._files: dict[int, int] = {}
        """The descriptors of the open files. A file must not be opened twice: closing one of its
        descriptors would release all its locks."""
        self._held: dict[int, set[int]] = {}
        """The slots that this process uses, by the host's first byte."""
        self._starving: set[int] = set()
        """The hosts of which this process has no slot and waits for one."""

    def take(self, host: str, most: int) -> int | None:
        """Returns a slot of this host, of which there are `most`, or None if none is free."""
        first = _first_byte(host)
        with self._lock:
            held = self._held.get(first, set())
            if not (held and self._others_starve(first)):
                for slot in range(min(most, SPAN - 1)):
                    if slot not in held and self._locked(first + slot):
                        self._held.setdefault(first, set()).add(slot)
                        self._stop_starving(first)
                        return slot
            if not held and first not in self._starving and self._locked(_last(first), share=True):
                self._starving.add(first)
            return None

    def give(self, host: str, slot: int) -> None:
        """Returns a slot."""
        first = _first_byte(host)
        with self._lock:
            held = self._held[first]
            held.remove(slot)
            if not held:
                del self._held[first]
            self._unlock(first + slot)

    def give_up(self, host: str) -> None:
        """Notes that this process no longer waits for a slot of this host."""
        with self._lock:
            self._stop_starving(_first_byte(host))

    def give_up_all(self) -> None:
        """Notes that this process does not wait for any slot now."""
        with self._lock:
            for first in list(self._starving):
                self._stop_starving(first)

    def close(self) -> None:
        """Closes the files, unless slots are in use. They are opened again when they are needed."""
        with self._lock:
            if not self._held:
                for descriptor in self._files.values():
                    os.close(descriptor)
                self._files.clear()
                self._starving.clear()
                self.pauses.close()
                self.silent.close()

    def _others_starve(self, first: int) -> bool:
        """Returns whether another process has no slot of a host, of which this one has some, and
        waits for one."""
        if not self._locked(_last(first)):
            return True
        self._unlock(_last(first))
        return False

    def _stop_starving(self, first: int) -> None:
        if first in self._starving:
            self._starving.discard(first)
            self._unlock(_last(first))

    def _locked(self, byte: int, *, share: bool = False) -> bool:
        """Locks a byte, and returns whether no other process has locked it.

        True also if it cannot be locked at all, as on a file system without locks.
        """
        descriptor = self._file(byte)
        if descriptor is None or fcntl is None:
            return True
        kind = fcntl.LOCK_SH if share else fcntl.LOCK_EX
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def _unlock(self, byte: int) -> None:
        descriptor = self._file(byte)
        if descriptor is not None and fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)

    def _file(self, byte: int) -> int | None:
        """Returns the descriptor of the file that a byte is in, or None without one."""
        number = byte // SPAN % FILES
        if self.folder is None:
            return None
        if number not in self._files:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                self._files[number] = os.open(self.folder / f"slots-{number:02d}", flags, 0o600)
            except OSError:
                return None
        return self._files[number]


_known: dict[Path | None, MachineLimits] = {}
_choosing = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child does not inherit the locks
    os.register_at_fork(after_in_child=_known.clear)


def limits_of_machine() -> MachineLimits:
    """Returns the limits that all fetchers of this process share."""
    folder = shared_folder()
    with _choosing:
        if folder not in _known:
            for limits in _known.values():
                limits.close()  # of another folder, as tests have them
            _known[folder] = MachineLimits(folder)
        return _known[folder]


def shared_folder() -> Path | None:
    """Returns the folder that all processes of this user share, which is made if it is missing, or
    None if there is none: it must belong to the user, and no other user may write there."""
    name = os.environ.get(VARIABLE, "")
    if fcntl is None or name == ALONE:
        return None
    base = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    folder = Path(name) if name else base / f"pinxit-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return folder if is_own and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def _first_byte(host: str) -> int:
    """Returns the place of a host's first byte."""
    digest = hashlib.blake2b(host.lower().encode(errors="replace"), digest_size=6).digest()
    return int.from_bytes(digest, "big") * SPAN


def _last(first: int) -> int:
    return first + SPAN - 1
