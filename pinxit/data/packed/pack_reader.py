"""Reads records of packs: exactly their bytes, each compared with its checksum.

A record that does not fit its checksum is read once more, and then counts as damaged for the rest
of this process. A pack that is missing, or whose index is damaged, is lost with all its records.
Errors of this machine or of the network are retried after pauses, as for shards. Nothing is ever
hashed whole here: `pinxit doctor --full` and `verify_pack` do that.
"""

from __future__ import annotations

import errno
import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pinxit.data.packed.pack_index import DamagedPack, PackIndex, index_name
from pinxit.data.packed.packed_manifest import PackInfo
from pinxit.data.stores.byte_store import ByteStore, Range

PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds to wait before each further attempt to read after an error of this machine."""
SCAN = 16 * 2**20
"""The number of bytes that are read at once when a whole pack is checked."""
INDEXES_AT_ONCE = 16
"""The number of indexes that are read at the same time."""
NAMED = 5
"""The number of damaged records of a pack that its reason lists."""

T = TypeVar("T")
Place = tuple[int, int]
"""A pack, by its number, and a record of it."""


class PackReader:
    """Reads records of a list of packs, which are opened when they are first needed."""

    def __init__(
        self, store: ByteStore, packs: Sequence[PackInfo], *, say: Callable[[str], None]
    ) -> None:
        """Takes the packs of a store. `say` receives warnings about damage."""
        self.store = store
        self.packs = tuple(packs)
        self.lost: dict[int, str] = {}
        """Maps each pack that cannot be used to the reason."""
        self.damaged: dict[int, set[int]] = {}
        """The damaged records of each pack."""
        self.found_damage = False
        """Whether any pack is damaged, and not only unreadable for this process."""
        self._say = say
        self._indexes: dict[int, PackIndex] = {}

    def read(self, places: Sequence[Place]) -> list[bytes | None]:
        """Returns the record at each place, or None if it cannot be used."""
        self._open({pack for pack, _ in places})
        contents = self._contents(places)
        again = [slot for slot, place in enumerate(places) if not self._fits(place, contents[slot])]
        again = [slot for slot in again if places[slot][0] not in self.lost]
        for slot, content in zip(
            again, self._contents([places[slot] for slot in again]), strict=True
        ):
            contents[slot] = content
            if not self._fits(places[slot], content):
                contents[slot] = None
                self._mark(*places[slot])
        return contents

    def is_bad(self, pack: int, record: int) -> bool:
        """Returns whether a record is known to be unusable."""
        return pack in self.lost or record in self.damaged.get(pack, ())

    @property
    def bad_records(self) -> int:
        """The number of records that are known to be unusable."""
        lost = sum(self.packs[pack].rows for pack in self.lost)
        return lost + sum(len(r) for pack, r in self.damaged.items() if pack not in self.lost)

    @property
    def reasons(self) -> dict[str, str]:
        """Maps each pack with unusable records to the reason."""
        reasons = {self.packs[pack].name: reason for pack, reason in self.lost.items()}
        for pack, records in sorted(self.damaged.items()):
            name = self.packs[pack].name
            reasons.setdefault(name, f"{name}: {records_in_words(records)}")
        return reasons

    # --- indexes ---

    def _open(self, packs: set[int]) -> None:
        """Reads the indexes of packs that are not known yet, several at the same time."""
        unknown = sorted(packs - self._indexes.keys() - self.lost.keys())
        if not unknown:
            return
        with ThreadPoolExecutor(min(INDEXES_AT_ONCE, len(unknown))) as pool:
            for pack, index in zip(unknown, pool.map(self._index, unknown), strict=True):
                if index is not None:
                    self._indexes[pack] = index

    def _index(self, number: int) -> PackIndex | None:
        """Reads the index of a pack, or gives up the pack."""
        pack = self.packs[number]
        name = index_name(pack.name)
        return self._retried(number, lambda: checked_index(self.store.read(name), pack))

    def _retried(self, pack: int, act: Callable[[], T]) -> T | None:
        """Calls `act` until no error of this machine occurs, or too often. Then, or if the pack is
        damaged, gives up the pack and returns None."""
        for pause in (*PAUSES, None):
            try:
                return act()
            except FileNotFoundError as error:
                name = error.filename or self.packs[pack].name
                reason, self.found_damage = f"{name} is missing", True
            except DamagedPack as error:
                reason, self.found_damage = str(error), True
            except OSError as error:
                if pause is not None:
                    time.sleep(pause)
                    continue
                reason = _unreadable(error, self.packs[pack].name)
            self.lost[pack] = reason
            self._say(f"warning: {reason}; other rows replace its rows")
            return None
        raise AssertionError

    # --- records ---

    def _contents(self, places: Sequence[Place]) -> list[bytes | None]:
        """Returns the bytes at each place, or None for packs that are lost. All packs are read at
        once; after an error, each by itself."""
        contents: list[bytes | None] = [None] * len(places)
        slots = [slot for slot, (pack, _) in enumerate(places) if pack not in self.lost]
        ranges = [self._range(places[slot]) for slot in slots]
        try:
            read = self.store.ranges(ranges) if ranges else []
        except OSError:
            slots_of: dict[int, list[int]] = {}
            for slot in slots:
                slots_of.setdefault(places[slot][0], []).append(slot)
            for pack, slots in slots_of.items():
                ranges = [self._range(places[slot]) for slot in slots]
                read = self._retried(pack, lambda ranges=ranges: self.store.ranges(ranges))
                for slot, content in zip(slots, read or (), strict=read is not None):
                    contents[slot] = content
            return contents
        for slot, content in zip(slots, read, strict=True):
            contents[slot] = content
        return contents

    def _range(self, place: Place) -> Range:
        pack, record = place
        return self.packs[pack].name, *self._indexes[pack].place(record)

    def _fits(self, place: Place, content: bytes | None) -> bool:
        return content is not None and self._indexes[place[0]].fits(place[1], content)

    def _mark(self, pack: int, record: int) -> None:
        """Notes a damaged record. The first one of each pack is reported."""
        if pack in self.lost:
            return
        records = self.damaged.setdefault(pack, set())
        records.add(record)
        self.found_damage = True
        if len(records) == 1:
            name = self.packs[pack].name
            self._say(
                f"warning: {name}: {records_in_words(records)}; other rows replace such rows, and "
                f"further ones of this pack are not reported"
            )


def records_in_words(records: set[int]) -> str:
    """Describes the damaged records of a pack."""
    named = ", ".join(str(record) for record in sorted(records)[:NAMED])
    more = ", ..." if len(records) > NAMED else ""
    count = "1 record does" if len(records) == 1 else f"{len(records)} records do"
    return f"{count} not match the stored CRC-32 ({named}{more})"


def checked_index(content: bytes, pack: PackInfo) -> PackIndex:
    """Returns the index of a pack. Raises `DamagedPack` if it is not the manifest's."""
    name = index_name(pack.name)
    if hashlib.sha256(content).hexdigest() != pack.index_sha256:
        raise DamagedPack(f"{name} is damaged (its SHA-256 differs)")
    index = PackIndex.from_bytes(content, name)
    if (len(index), index.size, index.sha256) != (pack.rows, pack.bytes, pack.sha256):
        raise DamagedPack(f"{name} belongs to another pack than {pack.name}")
    return index


def verify_pack(store: ByteStore, pack: PackInfo) -> str:
    """Reads a whole pack and returns what is wrong with it: every record's CRC-32 and the SHA-256
    are compared. Returns "" for a sound pack."""
    try:
        index = checked_index(store.read(index_name(pack.name)), pack)
        size = store.size(pack.name)
    except FileNotFoundError as error:
        return f"{error.filename or pack.name} is missing"
    except (DamagedPack, OSError) as error:
        return str(error)
    if size != pack.bytes:
        return f"{pack.name} has {size} bytes instead of {pack.bytes}"
    digest, damaged, record = hashlib.sha256(), set(), 0
    try:
        for first, stop, content in _blocks(store, pack.name, index):
            digest.update(content)
            view, start = memoryview(content), int(index.offsets[first])
            for record in range(first, stop):
                begin, end = (place - start for place in index.place(record))
                if zlib.crc32(view[begin:end]) != index.checksums[record]:
                    damaged.add(record)
    except OSError as error:
        return _unreadable(error, pack.name)
    if damaged:
        return f"{pack.name}: {records_in_words(damaged)}"
    return "" if digest.hexdigest() == pack.sha256 else f"{pack.name}: its SHA-256 differs"


def _blocks(store: ByteStore, name: str, index: PackIndex) -> Iterator[tuple[int, int, bytes]]:
    """Yields whole records of a pack, about `SCAN` bytes at a time: the first record, the one after
    the last, and their bytes."""
    first = 0
    while first < len(index):
        limit = int(index.offsets[first]) + SCAN
        stop = int(index.offsets.searchsorted(limit, side="right")) - 1
        stop = min(max(stop, first + 1), len(index))
        start, end = int(index.offsets[first]), int(index.offsets[stop])
        (content,) = store.ranges([(name, start, end)])
        yield first, stop, content
        first = stop


def _unreadable(error: OSError, name: str) -> str:
    """Describes an error of this machine or of the network in one line."""
    code = errno.errorcode.get(error.errno or errno.EIO, "error")
    return f"{name} is unreadable: {code} ({error.strerror or error})"
