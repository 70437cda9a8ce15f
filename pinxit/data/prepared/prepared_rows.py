"""Prepared data as rows for the `Loader`: any row at any time, from verified shards only.

What a row number means follows from the manifest alone, never from what happens to be on the disk,
so that all hosts and all restarts agree on the order: batch ``s`` is a function of the seed and of
``s``, and a host among several takes its places in it (`Loader`'s `part`).

Rows of one shape (there are several with aspect-ratio buckets) follow one another: a bucket. Within
it they are in the order of the units.

A shard is read only after its SHA-256 was found to be the manifest's. A damaged or missing one is
set aside (``<name>.corrupt``), named and counted; each of its rows is replaced by another one of
its bucket, chosen by a hash of the row, so that batches keep their size and the order of all others
stands. Rows that are held out neither replace others nor are replaced. Running the preparation
again makes the shard anew.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError, choice
from pinxit.data.image_column import IMAGE_COLUMNS, IMAGES, LATENTS
from pinxit.data.images.decode import decode_jpeg
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.data.prepared.row_layout import parts_of, shards_of
from pinxit.data.prepared.shards import (
    DamagedShard,
    ShardInfo,
    ShardReader,
    set_aside,
    shape_name,
    unpack,
    verify_shard,
)

ColumnsFn = Callable[[Sequence[str]], dict[str, np.ndarray]]
"""Captions to arrays with one row each, such as ``token_ids``."""
MULTIPLE = 8
"""Stored text is padded to a multiple of this many tokens."""
BLOCK = 64
"""Rows looked at together when a key is searched for."""
TOLERANCE = 0.05
"""Share of the shards that may be damaged; one may be in any case."""


class PreparedRows:
    """A prepared dataset, as `loader.Rows`.

    Columns: ``latents`` (float32, or `dtype`) or ``images`` (uint8); what `columns` makes of the
    captions; and, with `text`, ``text_tokens`` and ``text_mask`` (``text_pooled`` where there is
    one), their names ending in `suffix`.
    """

    def __init__(
        self,
        root: Path,
        *,
        kind: str = LATENTS,
        shape: tuple[int, ...] | None = None,
        columns: ColumnsFn | None = None,
        text: bool = False,
        suffix: str = "",
        dtype: np.dtype | type = np.float32,
        open_shards: int = 128,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`kind` is "latents" or "images"; `shape` (h, w, c) chooses one of several; `say` is told
        of damage.

        Raises `Unfinished` if the preparation is not at its end, and ValueError if the dataset has
        not what is asked for.
        """
        choice("kind", kind, IMAGE_COLUMNS)
        self.root = root
        self.kind = kind
        self.manifest = Manifest.read(root)
        if kind == LATENTS and self.manifest.latents is None:
            raise Unfinished("the dataset has images and no latents: run the second stage")
        self.columns = columns
        self.suffix = suffix
        self.dtype = np.dtype(dtype)
        self.say = say
        self.quarantined: dict[str, str] = {}
        """Shard to why it is not used."""
        self.replaced = 0
        """Rows given in place of unusable ones, so far."""
        folders = (kind, "text") if text else (kind,)
        if absent := [folder for folder in folders if folder not in self.manifest.files]:
            valid = ", ".join(self.manifest.files) or "none"
            raise UsageError(f"{root}: holds no {absent[0]}; it holds: {valid}")
        self._text = self.manifest.text if text else None
        self._files = shards_of(self.manifest, folders)
        """Unit to folder to shard; all are verified before one is read."""
        self._parts, self.buckets = parts_of(self.manifest, kind, self._files, shape)
        self._ends = np.cumsum([part.count for part in self._parts], dtype=np.int64)
        self._apart = [bucket.stop for bucket in self.buckets]
        """Rows replace one another between these only."""
        self._bad: set[int] = set()
        self._verified: set[int] = set()
        self._open: OrderedDict[int, dict[str, ShardReader]] = OrderedDict()
        self._open_shards = open_shards
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def hold_out(self, count: int) -> Int[np.ndarray, " n"]:
        """The last rows of each bucket, `count` together, each bucket its share.

        From now on they are no part of `buckets`, and none of them stands in for another row.
        """
        sizes = np.array([len(bucket) for bucket in self.buckets], np.int64)
        ends = np.cumsum(sizes) * count // max(1, int(sizes.sum()))
        shares = np.minimum(np.diff(ends, prepend=0), np.maximum(sizes - 1, 0)).tolist()
        pairs = list(zip(self.buckets, shares, strict=True))
        self.buckets = tuple(replace(b, stop=b.stop - share) for b, share in pairs)
        self._apart = [edge for b, share in pairs for edge in (b.stop - share, b.stop)]
        apart = [np.arange(b.stop - share, b.stop) for b, share in pairs]
        return np.concatenate([np.empty(0, np.int64), *apart])

    def sound(self, rows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " n"]:
        """Those of these rows whose shards are what the manifest says."""
        with self._lock:
            numbers = [self._parts[self._part(int(row))].unit for row in rows]
            for number in sorted(set(numbers) - self._bad):
                with contextlib.suppress(DamagedShard):
                    self._readers(number)
            self._check()
            return rows[[number not in self._bad for number in numbers]]

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Key to row, of those that are there; looks from the end of each key's unit."""
        wanted: dict[str, set[str]] = {}
        for key in keys:
            wanted.setdefault(key.rpartition("/")[0], set()).add(key)
        found: dict[str, int] = {}
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            left = wanted.get(self.manifest.units[part.unit], set())
            for stop in range(end, end - part.count, -BLOCK):
                if not left:
                    break
                some = self.sound(np.arange(max(end - part.count, stop - BLOCK), stop))
                metas = self.meta(some) if len(some) else []
                hits = {m["key"]: int(n) for m, n in zip(metas, some, strict=True)}
                found |= {key: hits[key] for key in left & hits.keys()}
                left -= hits.keys()
        return found

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """The arrays of these rows, which must be of one bucket.

        `DamagedShard` when too many shards are damaged.
        """
        records = self._records(rows)
        main = [unpack(record[self.kind]) for record in records]
        arrays: dict[str, np.ndarray] = {}
        if self.kind == LATENTS:
            arrays[LATENTS] = _stack([part["latents"] for part, _ in main]).astype(self.dtype)
        else:
            arrays[IMAGES] = _stack([decode_jpeg(part["jpeg"].tobytes()) for part, _ in main])
        if self._text is not None:
            arrays |= self._texts([unpack(record["text"])[0] for record in records])
        if self.columns is not None:
            arrays |= self.columns([meta["caption"] for _, meta in main])
        return arrays

    def captions(self, rows: Int[np.ndarray, " b"]) -> list[str]:
        """The captions of these rows."""
        return [meta["caption"] for meta in self.meta(rows)]

    def meta(self, rows: Int[np.ndarray, " b"]) -> list[dict[str, Any]]:
        """What is known of these rows: key, caption, original (width, height), crop (a box)."""
        return [unpack(record[self.kind])[1] for record in self._records(rows)]

    def verify_all(self, *, workers: int = 4) -> dict[str, str]:
        """Verifies every shard now rather than at its first use; those that are set aside."""
        left = [i for i in self._files if i not in self._verified | self._bad]
        with ThreadPoolExecutor(workers) as pool:
            for number, reason in zip(left, pool.map(self._damage, left), strict=True):
                with self._lock:
                    if reason is None:
                        self._verified.add(number)
                    else:
                        self._quarantine(number, *reason)
        return dict(self.quarantined)

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            while self._open:
                _close(self._open.popitem()[1])

    # --- from rows to records ---

    def _records(self, rows: Int[np.ndarray, " b"]) -> list[dict[str, bytes]]:
        """Folder to record, for each of the rows or what replaces it."""
        with self._lock:
            while True:
                self._check()
                usable = [self._usable(int(row)) for row in rows]
                parts = [self._part(row) for row in usable]
                found: list[dict[str, bytes]] = [{} for _ in usable]
                damaged = False
                for part in sorted(set(parts)):
                    places = [i for i, other in enumerate(parts) if other == part]
                    damaged |= not self._read(part, places, usable, found)
                if not damaged:
                    self.replaced += sum(a != b for a, b in zip(rows, usable, strict=True))
                    return found

    def _part(self, row: int) -> int:
        """The number of the part that a row is in."""
        return int(np.searchsorted(self._ends, row, side="right"))

    def _read(
        self, place: int, places: list[int], rows: list[int], found: list[dict[str, bytes]]
    ) -> bool:
        """Reads the rows at `places` from one part into `found`; False if its unit is damaged."""
        part = self._parts[place]
        start = int(self._ends[place]) - part.count - part.first
        folder, number = "", part.unit
        try:
            for folder, reader in self._readers(number).items():
                records = reader.read([rows[place] - start for place in places])
                for place, record in zip(places, records, strict=True):
                    found[place][folder] = record
        except DamagedShard as error:
            if number not in self._bad:
                self._quarantine(number, folder or self.kind, str(error))
            return False
        return True

    def _readers(self, number: int) -> dict[str, ShardReader]:
        """The open shards of a unit, verified."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if number not in self._verified:
            reason = self._damage(number)
            if reason is not None:
                self._quarantine(number, *reason)
                raise DamagedShard(reason[1])
            self._verified.add(number)
        files = self._files[number]
        readers = {name: ShardReader(self._path(name, info)) for name, info in files.items()}
        self._open[number] = readers
        while len(self._open) > self._open_shards:
            _close(self._open.popitem(last=False)[1])
        return readers

    def _path(self, folder: str, info: ShardInfo) -> Path:
        return self.root / folder / info.name

    # --- damage ---

    def _damage(self, number: int) -> tuple[str, str] | None:
        """(folder, reason) if a shard of the unit is not what the manifest says.

        A disk that cannot be read is not a damaged shard: its OSError passes.
        """
        for folder, info in self._files[number].items():
            try:
                verify_shard(self._path(folder, info), info)
            except DamagedShard as error:
                return folder, str(error)
        return None

    def _quarantine(self, number: int, folder: str, reason: str) -> None:
        """Takes a unit out of use and sets its damaged shard aside."""
        self._bad.add(number)
        if number in self._open:
            _close(self._open.pop(number))
        info = self._files[number][folder]
        done = set_aside(self._path(folder, info))
        self.quarantined[f"{folder}/{info.name}"] = reason
        self.say(f"warning: {folder}: {reason}; {done}; its rows are replaced by others")
        self._check()

    def _check(self) -> None:
        """Refuses to go on with what is left if that is too little."""
        allowed = max(1, int(TOLERANCE * len(self._files)))
        if len(self._bad) > min(allowed, len(self._files) - 1):
            raise DamagedShard(
                f"{self.root}: {len(self._bad)} of {len(self._files)} shards are damaged or "
                f"missing ({', '.join(list(self.quarantined)[:3])}); run the preparation again"
            )

    def _usable(self, row: int) -> int:
        """The row, or if its shard is unusable another one: the same for the same damage."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if not self._is_bad(row):
            return row
        end = bisect.bisect_right(self._apart, row)
        start, stop = self._apart[end - 1] if end else 0, self._apart[end]
        if all(self._parts[i].unit in self._bad for i in self._between(start, stop)):
            raise DamagedShard(
                f"{self.root}: damage has left no row to stand in for row {row}; run the "
                "preparation again"
            )
        for attempt in itertools.count():
            digest = hashlib.blake2b(f"{row} {attempt}".encode(), digest_size=8).digest()
            usable = start + int.from_bytes(digest, "little") % (stop - start)
            if not self._is_bad(usable):
                return usable
        raise AssertionError

    def _is_bad(self, row: int) -> bool:
        return bool(self._bad) and self._parts[self._part(row)].unit in self._bad

    def _between(self, start: int, stop: int) -> range:
        """The parts that have rows from `start` to `stop - 1`."""
        return range(self._part(start), self._part(stop - 1) + 1)

    # --- text ---

    def _texts(self, stored: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Stored tokens at their positions, padded to the dataset's longest."""
        assert self._text is not None
        longest = -(-max(1, self._text["longest"]) // MULTIPLE) * MULTIPLE
        length = min(longest, self._text["max_tokens"])
        dtype = np.float32 if self._text["wide"] else np.float16
        tokens = np.zeros((len(stored), length, self._text["width"]), dtype)
        mask = np.zeros((len(stored), length), bool)
        for row, part in enumerate(stored):
            tokens[row, part["positions"]] = part["tokens"]
            mask[row, part["positions"]] = True
        arrays = {"text_tokens": tokens, "text_mask": mask}
        if self._text["pooled"] is not None:
            arrays["text_pooled"] = np.stack([part["pooled"].astype(dtype) for part in stored])
        return {f"{name}{self.suffix}": array for name, array in arrays.items()}


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one shape as one."""
    if len(shapes := {array.shape for array in arrays}) > 1:
        names = ", ".join(sorted(map(shape_name, shapes)))
        raise ValueError(f"rows: of several shapes ({names}); take those of one bucket together")
    return np.stack(arrays)


def _close(readers: dict[str, ShardReader]) -> None:
    for reader in readers.values():
        reader.close()
