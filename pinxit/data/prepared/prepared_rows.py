"""Serves a prepared dataset as rows for the `Loader`, in any order and only from verified shards.

The manifest alone determines which sample a row number refers to, never the state of the disk. All
hosts and all restarts therefore agree on the order: batch ``s`` is a function of the seed and of
``s``, and each of several hosts takes its part of it (see `Loader`).

Rows of one shape are consecutive and form a bucket. (Aspect-ratio buckets give several shapes.)
Within a bucket, rows are in the order of the units.

A shard is read only after its SHA-256 has been checked against the manifest. A shard that is
damaged, missing or unreadable (see `unit_readers`) is reported and counted, and its file is left
as it is. Each of its rows is replaced by another row of its bucket, chosen by a hash of the row
number, so that batches keep their size and all other rows keep their positions. Processes that see
the same files therefore choose the same rows, without asking each other. Held-out rows neither
replace others nor are replaced. `pinxit prepare` with ``--verify 1`` makes damaged shards again.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
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
from pinxit.data.prepared.shards import DamagedShard, shape_name, unpack
from pinxit.data.prepared.unit_readers import UnitReaders

ColumnsFn = Callable[[Sequence[str]], dict[str, np.ndarray]]
"""Converts captions to arrays with one row per caption, such as ``token_ids``."""
MULTIPLE = 8
"""Stored text is padded to a multiple of this many tokens."""
BLOCK = 64
"""The number of rows that are read together when searching for a key."""
TOLERANCE = 0.05
"""The fraction of the shards that may be damaged. One damaged shard is always accepted."""


class PreparedRows:
    """The rows of a prepared dataset, as `loader.Rows`.

    The columns are ``latents`` (float32, or `dtype`) or ``images`` (uint8), and the arrays that
    `columns` makes from the captions. With `text`, there are also ``text_tokens`` and ``text_mask``
    (and ``text_pooled``, if it is stored), with `suffix` appended to their names.
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
        """Opens the dataset in `root`.

        `kind` is "latents" or "images". `shape` (h, w, c) selects the rows of one shape. `say`
        receives warnings about damage. Raises `Unfinished` if the preparation is not finished, and
        ValueError if the dataset lacks the requested data.
        """
        choice("kind", kind, IMAGE_COLUMNS)
        self.root = root
        self.kind = kind
        self.manifest = Manifest.read(root)
        if kind == LATENTS and self.manifest.latents is None:
            raise Unfinished(
                "the dataset has images but no latents: run the second stage (--stage latents)"
            )
        self.columns = columns
        self.suffix = suffix
        self.dtype = np.dtype(dtype)
        self.say = say
        self.replaced = 0
        """The number of rows that `take` has replaced so far."""
        self.too_damaged: Callable[[str], None] = _refuse
        """Receives the reason once too many shards are unusable. By default it raises
        `DamagedShard`; if it returns, the rows of the remaining shards are used."""
        folders = (kind, "text") if text else (kind,)
        if absent := [folder for folder in folders if folder not in self.manifest.files]:
            valid = ", ".join(self.manifest.files) or "none"
            raise UsageError(f"{root} holds no {absent[0]}; it holds: {valid}")
        self._text = self.manifest.text if text else None
        self._files = shards_of(self.manifest, folders)
        """The shards of each unit by folder. All are verified before one of them is read."""
        self._parts, self.buckets = parts_of(self.manifest, kind, self._files, shape)
        self._ends = np.cumsum([part.count for part in self._parts], dtype=np.int64)
        self._borders = [bucket.stop for bucket in self.buckets]
        """Row numbers that replacements never cross: the ends of buckets and of held-out rows."""
        self.units = UnitReaders(root, self._files, open_units=open_shards, say=say)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def hold_out(self, count: int) -> Int[np.ndarray, " n"]:
        """Holds out `count` rows and returns them.

        They are the last rows of each bucket, in proportion to the sizes of the buckets. They are
        removed from `buckets` and no longer replace other rows.
        """
        sizes = np.array([len(bucket) for bucket in self.buckets], np.int64)
        ends = np.cumsum(sizes) * count // max(1, int(sizes.sum()))
        shares = np.minimum(np.diff(ends, prepend=0), np.maximum(sizes - 1, 0)).tolist()
        pairs = list(zip(self.buckets, shares, strict=True))
        self.buckets = tuple(replace(b, stop=b.stop - share) for b, share in pairs)
        self._borders = [edge for b, share in pairs for edge in (b.stop - share, b.stop)]
        held_out = [np.arange(b.stop - share, b.stop) for b, share in pairs]
        return np.concatenate([np.empty(0, np.int64), *held_out])

    def sound(self, rows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " n"]:
        """Returns the rows whose shards match the manifest."""
        with self._lock:
            numbers = [self._parts[self._part(int(row))].unit for row in rows]
            usable = {n: self.units.is_usable(n) for n in sorted(set(numbers))}
            self._check()
            return rows[[usable[number] for number in numbers]]

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Returns the row numbers of those keys that exist, by key.

        The search starts at the end of each key's unit.
        """
        keys_of_unit: dict[str, set[str]] = {}
        for key in keys:
            keys_of_unit.setdefault(key.rpartition("/")[0], set()).add(key)
        row_of_key: dict[str, int] = {}
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            remaining = keys_of_unit.get(self.manifest.units[part.unit], set())
            for stop in range(end, end - part.count, -BLOCK):
                if not remaining:
                    break
                rows = self.sound(np.arange(max(end - part.count, stop - BLOCK), stop))
                metas = self.meta(rows) if len(rows) else []
                hits = {m["key"]: int(n) for m, n in zip(metas, rows, strict=True)}
                row_of_key |= {key: hits[key] for key in remaining & hits.keys()}
                remaining -= hits.keys()
        return row_of_key

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays of these rows, which must be of one bucket.

        Raises `DamagedShard` if too many shards are damaged.
        """
        records = self._records(rows, count=True)
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
        """Returns the captions of these rows."""
        return [meta["caption"] for meta in self.meta(rows)]

    def meta(self, rows: Int[np.ndarray, " b"]) -> list[dict[str, Any]]:
        """Returns each row's metadata: key, caption, original (width, height) and crop (a box)."""
        return [unpack(record[self.kind])[1] for record in self._records(rows)]

    @property
    def damaged(self) -> dict[str, str]:
        """Maps each unusable shard to the reason."""
        return dict(self.units.reasons)

    def verify_all(self, *, workers: int = 4) -> dict[str, str]:
        """Verifies every shard now instead of at its first use. Returns the unusable ones."""
        with self._lock:
            self.units.verify_all(workers=workers)
            self._check()
        return self.damaged

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            self.units.close()

    # --- from rows to records ---

    def _records(
        self, rows: Int[np.ndarray, " b"], *, count: bool = False
    ) -> list[dict[str, bytes]]:
        """Returns the records of each row, or of its replacement, by folder. Replacements are added
        to `replaced` if `count`."""
        with self._lock:
            while True:
                self._check()
                usable = [self._usable(int(row)) for row in rows]
                parts = np.searchsorted(self._ends, usable, side="right").tolist()
                slots_of_part: dict[int, list[int]] = {}
                for slot, part in enumerate(parts):
                    slots_of_part.setdefault(part, []).append(slot)
                records: list[dict[str, bytes]] = [{} for _ in usable]
                complete = True
                for part, slots in sorted(slots_of_part.items()):
                    complete &= self._read(part, slots, usable, records)
                if complete:
                    if count:
                        self.replaced += sum(
                            a != b for a, b in zip(rows.tolist(), usable, strict=True)
                        )
                    return records

    def _part(self, row: int) -> int:
        """Returns the index of the part that holds a row."""
        return int(np.searchsorted(self._ends, row, side="right"))

    def _read(
        self, index: int, slots: list[int], rows: list[int], records: list[dict[str, bytes]]
    ) -> bool:
        """Reads the rows at `slots` from part `index` into `records`.

        Returns False if the unit of the part is damaged.
        """
        part = self._parts[index]
        start = int(self._ends[index]) - part.count - part.first
        try:
            contents = self.units.read(part.unit, [rows[slot] - start for slot in slots])
        except DamagedShard:  # it has been reported
            return False
        for folder, records_of in contents.items():
            for slot, content in zip(slots, records_of, strict=True):
                records[slot][folder] = content
        return True

    # --- damage ---

    def _check(self) -> None:
        """Calls `too_damaged` if too many shards are unusable."""
        count, total = len(self.units.unusable), len(self._files)
        if count > min(max(1, int(TOLERANCE * total)), total - 1):
            self.too_damaged(
                f"{count} of {total} shards of {self.root} cannot be used "
                f"({'; '.join(list(self.units.reasons.values())[:3])}){self._remedy()}"
            )

    def _remedy(self) -> str:
        """Returns how to make damaged shards again, or "" if none is damaged."""
        if not self.units.found_damage:
            return ""
        return (
            f"; to make damaged shards again, run the same `pinxit prepare … --out {self.root}` "
            "command with --verify 1"
        )

    def _usable(self, row: int) -> int:
        """Returns the row, or a replacement if its shard is damaged.

        The replacement depends only on the row and on which shards are damaged.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if not self._is_bad(row):
            return row
        end = bisect.bisect_right(self._borders, row)
        start, stop = self._borders[end - 1] if end else 0, self._borders[end]
        if all(self._parts[i].unit in self.units.unusable for i in self._between(start, stop)):
            raise DamagedShard(
                f"{self.root}: all rows that could replace row {row} are unusable{self._remedy()}"
            )
        for attempt in itertools.count():
            digest = hashlib.blake2b(f"{row} {attempt}".encode(), digest_size=8).digest()
            usable = start + int.from_bytes(digest, "little") % (stop - start)
            if not self._is_bad(usable):
                return usable
        raise AssertionError

    def _is_bad(self, row: int) -> bool:
        bad = self.units.unusable
        return bool(bad) and self._parts[self._part(row)].unit in bad

    def _between(self, start: int, stop: int) -> range:
        """Returns the indices of the parts that hold rows `start` to `stop - 1`."""
        return range(self._part(start), self._part(stop - 1) + 1)

    # --- text ---

    def _texts(self, stored: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Puts stored tokens at their positions, padded to the longest text of the dataset."""
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
    """Stacks arrays, which must have one shape."""
    if len(shapes := {array.shape for array in arrays}) > 1:
        names = ", ".join(sorted(map(shape_name, shapes)))
        raise ValueError(
            f"rows: they have several shapes ({names}); take rows of one bucket at a time"
        )
    return np.stack(arrays)


def _refuse(reason: str) -> None:
    raise DamagedShard(reason)
