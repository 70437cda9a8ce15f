"""One row per perceptual hash in a whole set: the keys of the others, found in one pass.

Workers read units in any order, so none of them can know which row of a hash comes first. One pass
over the metadata, in order and before anything is fetched, can: of the rows that pass the filters
the first of each hash (and of each URL) is kept, and the keys of the rest are what `Filter` takes
as `duplicates`.

Both what was seen and what was found may be a `set`, exact but in memory (about 100 bytes an entry:
fine to some 20 million rows), or a `Bloom` filter (Bloom 1970), of fixed size: with n entries in m
bits and k hashes it calls an unknown entry known with probability (1 - exp(-k n / m))^k, 0.8 % at
10 bits an entry and k = 7. COYO has 580 million hashes and 656 million URLs: 1.5 GB for what was
seen, during the pass; and about 170 million duplicates, 210 MB in every worker. Such an error drops
a good row: up to 2.4 % of them. The pass is over metadata alone, on one core, and its result
depends on nothing but the rows and their order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from pinxit.data.filters import Filter, FilterConfig
from pinxit.data.schema import Row

BITS_PER_ENTRY = 10
MAGIC = b"pinxit bloom 1\n"


@runtime_checkable
class Keys(Protocol):
    """What a set and a `Bloom` have in common."""

    def __contains__(self, key: object, /) -> bool: ...

    def add(self, key: str, /) -> None: ...


K = TypeVar("K", bound=Keys)


class Bloom:
    """A set of strings in fixed memory that may call a strange string known, never the reverse."""

    def __init__(self, entries: int, *, bits_per_entry: int = BITS_PER_ENTRY) -> None:
        """For about `entries` strings; with more of them it errs more often."""
        if entries < 1 or bits_per_entry < 1:
            raise ValueError(f"entries {entries} and bits_per_entry {bits_per_entry}: at least 1")
        self.hashes = max(1, round(math.log(2) * bits_per_entry))
        self._bits = np.zeros(-(-entries * bits_per_entry // 8), np.uint8)

    def add(self, key: str, /) -> None:
        """Makes a string known."""
        for place in self._places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: object, /) -> bool:
        """Whether a string was added, or, rarely, was not."""
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in self._places(str(key)))

    def __eq__(self, other: object) -> bool:
        """Whether both know the same."""
        if not isinstance(other, Bloom):
            return NotImplemented
        return self.hashes == other.hashes and np.array_equal(self._bits, other._bits)

    __hash__ = None  # type: ignore[assignment]

    def save(self, path: str | Path) -> None:
        """Writes the filter: a line of magic, the number of hashes in one byte, the bits."""
        head = MAGIC + bytes([self.hashes])
        Path(path).write_bytes(head + self._bits.tobytes())

    @classmethod
    def load(cls, path: str | Path) -> Bloom:
        """Reads what `save` wrote; ValueError where it is something else."""
        data = Path(path).read_bytes()
        if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 2 or not data[len(MAGIC)]:
            raise ValueError(f"{path} is no list of duplicates that Pinxit wrote")
        bloom = cls(1)
        bloom.hashes = data[len(MAGIC)]
        bloom._bits = np.frombuffer(data[len(MAGIC) + 1 :], np.uint8).copy()
        return bloom

    def _places(self, key: str) -> list[int]:
        """The bits of a string: k steps of two 64-bit hashes (Kirsch and Mitzenmacher 2006)."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = int.from_bytes(digest[:8], "little")
        step = int.from_bytes(digest[8:], "little") | 1
        total = 8 * len(self._bits)
        return [(first + number * step) % total for number in range(self.hashes)]


def find_duplicates(rows: Iterable[Row], config: FilterConfig, *, seen: Keys, found: K) -> K:
    """Adds to `found` the keys of rows whose hash or URL an earlier row has, and returns it.

    Rows that the other filters drop neither count nor make duplicates. `seen` begins empty.
    """
    plain = Filter(_without_duplicates(config))
    for row in rows:
        if plain.check(row) is not None:
            continue
        marks = []
        if config.unique_phash and row.phash is not None:
            marks.append(f"phash {row.phash}")
        url = row.url or row.origin
        if config.unique_url and url is not None:
            marks.append(f"url {url}")
        if any(mark in seen for mark in marks):
            found.add(row.key)
            continue
        for mark in marks:
            seen.add(mark)
    return found


def _without_duplicates(config: FilterConfig) -> FilterConfig:
    return dataclasses.replace(config, unique_phash=False, unique_url=False)
