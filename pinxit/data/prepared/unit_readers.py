"""Opens and verifies the shards of units, and reads their records.

Small datasets are hashed as they are read: each shard is compared with its SHA-256 before its first
record is used. In a larger one only the size is compared then, and a thread hashes the shards that
are in use, behind the reading (see `background_hashes`); ArrayRecord itself notices a flipped bit
in a record that is read.

Only a missing file, a wrong size or a wrong SHA-256 is damage. A reader that fails on a record is
not proof of it, so the files of the unit are hashed then. Errors of this machine (too many
open files, a failing disk) are retried after pauses, because shared storage recovers. If they
remain, the unit counts as unreadable for the rest of this process. Files are never renamed or
deleted here: other readers share them.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import TypeVar

from pinxit.data.prepared.background_hashes import BackgroundHashes
from pinxit.data.prepared.read_errors import EXHAUSTED, read_problem
from pinxit.data.prepared.shards import (
    DamagedShard,
    ShardInfo,
    ShardReader,
    check_file_size,
    verify_shard,
)
from pinxit.open_files import limit_now

T = TypeVar("T")

HASH_FIRST = 2 * 10**9
"""Datasets of up to this many bytes are hashed as they are read. That takes a few seconds."""
DEFAULT_OPEN = 128
"""The number of units that may be open where the system has no limit that can be read."""
RESERVED_FILES = 512
"""The number of open files that are left to the rest of the process."""
FEWEST = 16
"""The number of units that may be open whatever the limit is."""
OPENERS = 8
"""The number of threads that open the shards of a batch."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds to wait before each further attempt to read after an error of this machine."""


class UnitReaders:
    """Readers of the shards of each unit, at most `open_units` at a time."""

    def __init__(
        self,
        root: Path,
        files: Mapping[int, Mapping[str, ShardInfo]],
        *,
        open_units: int | None,
        hash_first: bool | None,
        lock: RLock,
        say: Callable[[str], None],
    ) -> None:
        """Takes the shards of each unit by folder.

        `open_units` None keeps as many units open as the limit of open files allows. `hash_first`
        tells whether shards are hashed before they are used; None decides by the size of the
        dataset. The thread in the background takes `lock` to give up a unit. `say` receives
        warnings.
        """
        self.root = root
        self.files = files
        self.unusable: set[int] = set()
        """The units that cannot be used."""
        self.reasons: dict[str, str] = {}
        """Maps each shard that cannot be used to the reason."""
        self.found_damage = False
        """Whether any of them is damaged, and not only unreadable for this process."""
        self._open_units = most_open(files) if open_units is None else open_units
        total = sum(info.bytes for infos in files.values() for info in infos.values())
        self._hash_first = total <= HASH_FIRST if hash_first is None else hash_first
        self._say = say
        self._lock = lock
        self._sized: set[int] = set()
        """The units whose files have the right sizes."""
        self._verified: set[int] = set()
        """The units whose files have the right hashes."""
        self._open: OrderedDict[int, dict[str, ShardReader]] = OrderedDict()
        self._hashes = BackgroundHashes(self._found_in_background)

    def read(self, number: int, rows: Sequence[int]) -> dict[str, list[bytes]]:
        """Returns the records with these numbers of a unit, by folder.

        Raises `DamagedShard` if the unit cannot be used.
        """
        return self._retried(number, lambda: self._records(number, rows))

    def open_ahead(self, numbers: Sequence[int]) -> None:
        """Opens those of these units that are not open, several at the same time. Whatever goes
        wrong is found again, and handled, when they are read."""
        closed = [n for n in numbers if n not in self._open and n not in self.unusable]
        if self._hash_first:
            closed = [n for n in closed if n in self._verified]
        closed = closed[: self._open_units]
        if len(closed) < 2:
            return
        with ThreadPoolExecutor(min(OPENERS, len(closed))) as pool:
            opened = list(pool.map(self._opened_or_none, closed))
        for number, readers in zip(closed, opened, strict=True):
            if readers is not None:
                self._note_sizes(number)
                self._keep(number, readers)

    def is_usable(self, number: int) -> bool:
        """Hashes a unit unless that was done, and returns whether it can be used."""
        if number not in self.unusable:
            try:
                self._retried(number, lambda: self._verify(number))
            except DamagedShard:
                return False
        return number not in self.unusable

    def verify_all(self, *, workers: int = 4) -> None:
        """Verifies every unit now instead of at its first use."""
        remaining = [i for i in self.files if i not in self._verified | self.unusable]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(self.is_usable, remaining))

    def close(self) -> None:
        """Closes all files, and ends the thread that hashes them."""
        self.end_checks()
        self._close_all()

    def end_checks(self) -> None:
        """Ends the thread that hashes shards. No lock is needed."""
        self._hashes.close()

    def _close_all(self) -> None:
        while self._open:
            self._close(next(iter(self._open)))

    def _retried(self, number: int, act: Callable[[], T]) -> T:
        """Calls `act` until no error of this machine occurs, or too often. Then, or if the unit is
        damaged, gives up the unit and raises `DamagedShard`."""
        for pause in (*PAUSES, None):
            try:
                return act()
            except _Damaged as error:
                reason, folder, self.found_damage = str(error), error.folder, True
            except OSError as error:
                self._close(number)
                if error.errno in EXHAUSTED:
                    self._close_all()
                folder, path = self._place(number, error)
                if pause is not None:
                    time.sleep(pause)
                    continue
                reason = read_problem(error, path)
            self._give_up(number, folder, reason)
            raise DamagedShard(reason)
        raise AssertionError

    def _records(self, number: int, rows: Sequence[int]) -> dict[str, list[bytes]]:
        """Returns records of a unit. Raises `_Damaged`, or OSError for errors of this machine."""
        if self._hash_first:
            self._verify(number)
        else:
            self._check_sizes(number)
        try:
            return {name: reader.read(rows) for name, reader in self._readers(number).items()}
        except DamagedShard as error:
            self._close(number)
            self._verified.discard(number)
            self._verify(number)
            raise OSError(errno.EIO, str(error)) from error

    def _check_sizes(self, number: int) -> None:
        """Compares the sizes of the files of a unit with the manifest, once, and has them hashed in
        the background."""
        if number not in self._sized:
            self._compare_sizes(number)
            self._note_sizes(number)

    def _compare_sizes(self, number: int) -> None:
        """Raises `_Damaged` if a file of a unit is missing or has another size."""
        for folder, info in self.files[number].items():
            try:
                check_file_size(self.root / folder / info.name, info)
            except DamagedShard as error:
                raise _Damaged(folder, str(error)) from error

    def _note_sizes(self, number: int) -> None:
        """Notes that the files of a unit have the right sizes, and has them hashed."""
        if number in self._sized:
            return
        self._sized.add(number)
        if number not in self._verified:
            places = {f: (self.root / f / i.name, i) for f, i in self.files[number].items()}
            self._hashes.add(number, places)

    def _verify(self, number: int) -> None:
        """Compares the files of a unit with the manifest, once."""
        if number in self._verified:
            return
        for folder, info in self.files[number].items():
            try:
                verify_shard(self.root / folder / info.name, info)
            except DamagedShard as error:
                raise _Damaged(folder, str(error)) from error
        self._verified.add(number)
        self._sized.add(number)

    def _found_in_background(self, number: int, folder: str, reason: str) -> None:
        """Stops using a unit whose hash differs. Another thread calls this."""
        with self._lock:
            if number not in self.unusable:
                self.found_damage = True
                self._give_up(number, folder, reason)

    def _readers(self, number: int) -> dict[str, ShardReader]:
        """Returns the open readers of a unit by folder."""
        if number not in self._open:
            self._make_room()
            self._keep(number, self._opened(number))
        self._open.move_to_end(number)
        return self._open[number]

    def _opened(self, number: int) -> dict[str, ShardReader]:
        """Opens the files of a unit."""
        readers: dict[str, ShardReader] = {}
        try:
            for name, info in self.files[number].items():
                readers[name] = ShardReader(self.root / name / info.name)
        except BaseException:
            _close(readers)
            raise
        return readers

    def _opened_or_none(self, number: int) -> dict[str, ShardReader] | None:
        try:
            if number not in self._sized:
                self._compare_sizes(number)
            return self._opened(number)
        except (_Damaged, DamagedShard, OSError):
            return None

    def _keep(self, number: int, readers: dict[str, ShardReader]) -> None:
        """Keeps the files of a unit open, and closes those of the units used longest ago."""
        self._make_room()
        self._open[number] = readers

    def _make_room(self) -> None:
        """Closes units until another one may be opened."""
        while len(self._open) >= self._open_units:
            self._close(next(iter(self._open)))

    def _close(self, number: int) -> None:
        """Closes the files of a unit, if they are open."""
        _close(self._open.pop(number, {}))

    def _place(self, number: int, error: OSError) -> tuple[str, Path]:
        """Returns the folder and the path of the shard at which an error occurred."""
        paths = {name: self.root / name / info.name for name, info in self.files[number].items()}
        at = [(name, path) for name, path in paths.items() if str(path) == str(error.filename)]
        return (at or list(paths.items()))[0]

    def _give_up(self, number: int, folder: str, reason: str) -> None:
        """Stops using a unit, and says so."""
        self.unusable.add(number)
        self._close(number)
        self.reasons[f"{folder}/{self.files[number][folder].name}"] = reason
        self._say(f"warning: {folder}: {reason}; other rows replace its rows")


def most_open(files: Mapping[int, Mapping[str, ShardInfo]]) -> int:
    """Returns how many units may be open at once, by the limit of open files of this process."""
    limit = limit_now()
    if limit is None:
        return DEFAULT_OPEN
    a_unit = max((len(infos) for infos in files.values()), default=1)
    return max(FEWEST, (limit - RESERVED_FILES) // a_unit)


class _Damaged(Exception):
    """Raised when a file differs from the manifest."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(reason)
        self.folder = folder


def _close(readers: Mapping[str, ShardReader]) -> None:
    for reader in readers.values():
        reader.close()
