"""Opens and verifies the shards of units, and reads their records.

Only a missing file, a wrong size or a wrong SHA-256 is damage. A reader that fails on a record is
not proof of it, so the files of the unit are verified again then. Errors of this machine (too many
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
from typing import TypeVar

from pinxit.data.prepared.read_errors import EXHAUSTED, read_problem
from pinxit.data.prepared.shards import DamagedShard, ShardInfo, ShardReader, verify_shard

T = TypeVar("T")

PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds to wait before each further attempt to read after an error of this machine."""


class UnitReaders:
    """Readers of the shards of each unit, at most `open_units` at a time."""

    def __init__(
        self,
        root: Path,
        files: Mapping[int, Mapping[str, ShardInfo]],
        *,
        open_units: int,
        say: Callable[[str], None],
    ) -> None:
        """Takes the shards of each unit by folder. `say` receives warnings."""
        self.root = root
        self.files = files
        self.unusable: set[int] = set()
        """The units that cannot be used."""
        self.reasons: dict[str, str] = {}
        """Maps each shard that cannot be used to the reason."""
        self.found_damage = False
        """Whether any of them is damaged, and not only unreadable for this process."""
        self._open_units = open_units
        self._say = say
        self._verified: set[int] = set()
        self._open: OrderedDict[int, dict[str, ShardReader]] = OrderedDict()

    def read(self, number: int, rows: Sequence[int]) -> dict[str, list[bytes]]:
        """Returns the records with these numbers of a unit, by folder.

        Raises `DamagedShard` if the unit cannot be used.
        """
        return self._retried(number, lambda: self._records(number, rows))

    def is_usable(self, number: int) -> bool:
        """Verifies a unit unless that was done, and returns whether it can be used."""
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
        """Closes all files."""
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
                    self.close()
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
        self._verify(number)
        try:
            return {name: reader.read(rows) for name, reader in self._readers(number).items()}
        except DamagedShard as error:
            self._close(number)
            self._verified.discard(number)
            self._verify(number)
            raise OSError(errno.EIO, str(error)) from error

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

    def _readers(self, number: int) -> dict[str, ShardReader]:
        """Returns the open readers of a unit by folder."""
        if number not in self._open:
            while len(self._open) >= self._open_units:
                self._close(next(iter(self._open)))
            readers: dict[str, ShardReader] = {}
            try:
                for name, info in self.files[number].items():
                    readers[name] = ShardReader(self.root / name / info.name)
            except BaseException:
                _close(readers)
                raise
            self._open[number] = readers
        self._open.move_to_end(number)
        return self._open[number]

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


class _Damaged(Exception):
    """Raised when a file differs from the manifest."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(reason)
        self.folder = folder


def _close(readers: Mapping[str, ShardReader]) -> None:
    for reader in readers.values():
        reader.close()
