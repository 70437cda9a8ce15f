"""Stores the duplicates of a whole dataset as a list with two bits per row.

Workers read units in any order, so none of them can tell which row with a given hash comes first.
The list answers this. `pinxit.prepare.find_duplicates` makes it in passes over the metadata, before
anything is fetched. Among the rows that pass the other filters, it keeps the first of each URL, and
among these the first of each perceptual hash. Every other row has one bit set: the bit for its URL
or the bit for its hash. The list is valid only for the source, the units and the filters that it
was made with, and is refused with others. Otherwise a row that the list keeps could be filtered
out later, and its duplicates would be lost with it.

The list is one file in the safetensors format: ``url`` and ``phash`` (bits; each unit begins at a
new byte), ``first`` (the number of each unit's first row), ``start`` (the unit's first byte), and
the rest as JSON. The file is memory-mapped instead of read, so all workers of a machine share its
pages. COYO's list has 187 MB.
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
from pinxit.data.filters.row_filter import (
    WEB_LIMITS,
    Duplicates,
    FilterConfig,
    NoDuplicates,
)
from pinxit.data.images.image_config import AUTO
from pinxit.data.prepared.shards import DamagedShard, pack, unpack
from pinxit.data.row import Source, source_identity
from pinxit.files import whole

FORMAT = 1
"""Version of the file format."""
REASONS = {"url": "filtered_url", "phash": "filtered_phash"}
"""Name of a bit array to the status of the rows whose bit is set."""


class DuplicateList:
    """Reads a list of duplicates from disk."""

    def __init__(self, path: Path) -> None:
        """Opens the list; raises `UsageError` if the file is missing or damaged."""
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
                problem=f"not a list of duplicates ({error})",
                valid="a file that `pinxit prepare SOURCE --find_duplicates FILE` wrote",
            ) from error
        self._units = {unit: number for number, unit in enumerate(self.about["units"])}

    @property
    def sha256(self) -> str:
        """The hash of the list's content, which identifies the list."""
        return self.about["sha256"]

    def get(self, key: str, /) -> str | None:
        """Returns the status of the row if it is a duplicate, otherwise None.

        Raises `UsageError` for a unit that the list does not cover.
        """
        unit, _, number = key.rpartition("/")
        index = self._units.get(unit)
        if index is None:
            raise UsageError(
                f"filters.duplicates: {self.path} ends before unit {unit}, because it was made "
                "with a smaller --limit; make a new list"
            )
        row = int(number) - int(self._arrays["first"][index])
        at = int(self._arrays["start"][index]) + (row >> 3)
        if row < 0 or at >= int(self._arrays["start"][index + 1]):
            raise UsageError(
                f"filters.duplicates: {self.path} does not cover unit {unit}, which could not be "
                "read when the list was made; make a new list"
            )
        for name, reason in REASONS.items():
            if self._arrays[name][at] >> (row & 7) & 1:
                return reason
        return None

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises `UsageError` unless the list was made for this source and these filters."""
        if changed := differences(self.about["identity"], identity):
            raise UsageError(
                "filters.duplicates",
                str(self.path),
                problem=f"a list for other settings: {'; '.join(changed)}",
                valid="the settings that it was made with, or a new list",
            )


def list_identity(source: Source, filters: FilterConfig) -> dict[str, Any]:
    """Returns the settings that determine a list, as plain JSON."""
    return {"source": source_identity(source), "filters": _settings(filters)}


def _settings(filters: FilterConfig) -> dict[str, Any]:
    """Returns the filters as plain JSON, without the list, and with a value for each auto."""
    settings = {name: x for name, x in plain(filters).items() if name != "duplicates"}
    return {name: WEB_LIMITS[name] if x == AUTO else x for name, x in settings.items()}


def open_duplicates(source: Source, filters: FilterConfig) -> Duplicates:
    """Opens the list that the filters name; without one, only duplicates in a unit are known."""
    if filters.duplicates is None:
        return NoDuplicates()
    duplicates = DuplicateList(Path(filters.duplicates).expanduser())
    duplicates.check(list_identity(source, filters))
    return duplicates


def filters_identity(filters: FilterConfig) -> dict[str, Any]:
    """Returns the filters as plain JSON, with the hash of the list of duplicates, not its path."""
    settings = _settings(filters)
    if filters.duplicates is not None:
        settings["duplicates"] = DuplicateList(Path(filters.duplicates).expanduser()).sha256
    return settings


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
    """Writes a list atomically; equal lists have equal bytes."""
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
    """Returns the SHA-256 of the arrays' content, in hex."""
    hashed = hashlib.sha256()
    for name in (*REASONS, "first", "start"):
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()
