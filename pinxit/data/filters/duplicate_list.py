"""The list of a whole set's duplicates: two bits a row, for whoever reads its units in any order.

Workers read units in any order, so none of them can know which row of a hash comes first. The list
knows: `find_duplicates.py` makes it in passes over the metadata, before anything is fetched. Of the
rows that pass the other filters the first of each URL is kept, and of these the first of each
perceptual hash; each of the others has a bit that says which of the two it is. The list holds for
the source, the units and the filters that it was made with, and refuses any others: a row that was
kept there must not be filtered here, or its duplicates would be gone with it.

One file in the safetensors format: ``url`` and ``phash`` (bits, a unit's beginning with a new
byte), ``first`` (the number of each unit's first row), ``start`` (its first byte), and the rest as
JSON. It is mapped, not read: all workers of a machine share its pages. COYO's has 187 MB.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from pinxit.config import UsageError, differences, plain
from pinxit.data.filters.row_filter import Duplicates, FilterConfig, NoDuplicates
from pinxit.data.prepared.shards import DamagedShard, pack, unpack
from pinxit.data.row import Source, source_identity
from pinxit.files import whole

FORMAT = 1
REASONS = {"url": "filtered_url", "phash": "filtered_phash"}


class DuplicateList:
    """A list on the disk."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where there is none, or where it is damaged."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._arrays, self.about = unpack(self._map)
            if self.about.get("format") != FORMAT or self.about["sha256"] != digest(self._arrays):
                raise DamagedShard("its SHA-256 differs")
        except (OSError, DamagedShard, KeyError, ValueError) as error:
            raise UsageError(
                "filters.duplicates",
                str(path),
                problem=f"no list of duplicates ({error})",
                valid="a file that `pinxit prepare SOURCE --find_duplicates FILE` wrote",
            ) from error
        self._units = {unit: number for number, unit in enumerate(self.about["units"])}

    @property
    def sha256(self) -> str:
        """What tells this list from others."""
        return self.about["sha256"]

    def get(self, key: str, /) -> str | None:
        """The status that the row ends with, or None. ValueError for a row beyond the list."""
        unit, _, number = key.rpartition("/")
        place = self._units.get(unit)
        if place is None:
            raise UsageError(
                f"filters.duplicates: {self.path} ends before unit {unit}: it was made with a "
                "smaller --limit; make it anew"
            )
        row = int(number) - int(self._arrays["first"][place])
        at = int(self._arrays["start"][place]) + (row >> 3)
        for name, reason in REASONS.items():
            if self._arrays[name][at] >> (row & 7) & 1:
                return reason
        return None

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises unless the list was made for this source and these filters."""
        if changed := differences(self.about["identity"], identity):
            raise UsageError(
                "filters.duplicates",
                str(self.path),
                problem=f"a list for other settings: {'; '.join(changed)}",
                valid="the settings that it was made with, or a list made anew",
            )


def list_identity(source: Source, filters: FilterConfig) -> dict[str, Any]:
    """What a list depends on."""
    known = {name: x for name, x in plain(filters).items() if name != "duplicates"}
    return {"source": source_identity(source), "filters": known}


def open_duplicates(source: Source, filters: FilterConfig) -> Duplicates:
    """The list that the filters name; without one, nothing is a duplicate between units."""
    if filters.duplicates is None:
        return NoDuplicates()
    found = DuplicateList(Path(filters.duplicates).expanduser())
    found.check(list_identity(source, filters))
    return found


def filters_identity(filters: FilterConfig) -> dict[str, Any]:
    """The filters, with what the list of duplicates says in place of where it lies."""
    known = {name: x for name, x in plain(filters).items() if name != "duplicates"}
    if filters.duplicates is not None:
        known["duplicates"] = DuplicateList(Path(filters.duplicates).expanduser()).sha256
    return known


def write_list(
    path: Path,
    *,
    identity: Mapping[str, Any],
    units: Sequence[str],
    first: Int[np.ndarray, " u"],
    start: Int[np.ndarray, " v"],
    bits: Mapping[str, UInt8[np.ndarray, " n"]],
    counts: Mapping[str, int],
) -> None:
    """Writes a list, whole or not at all; equal lists have equal bytes."""
    arrays = {**{name: bits[name] for name in REASONS}, "first": first, "start": start}
    about = {
        "format": FORMAT,
        "identity": plain(identity),
        "units": list(units),
        "counts": dict(counts),
        "sha256": digest(arrays),
    }
    with whole(path) as temporary:
        temporary.write_bytes(pack(arrays, about))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of the arrays' content."""
    hashed = hashlib.sha256()
    for name in (*REASONS, "first", "start"):
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()
