"""Serves a prepared dataset as rows for the `Loader`, in any order and only from sound records.

The manifest alone determines which sample a row number refers to, never the state of the disk. All
hosts and all restarts therefore agree on the order: batch ``s`` is a function of the seed and of
``s``, and each of several hosts takes its part of it (see `Loader`).

Rows of one shape are consecutive and form a bucket. (Aspect-ratio buckets give several shapes.)
Within a bucket, rows are in the order of the units. A packed dataset has the same numbers.

Records are checked before they are used. `ShardRecords` and `PackedRecords` say how, and which rows
damage makes unusable; it is reported and counted, and files are left as they are. Each unusable row
is replaced by another row of its bucket, chosen by a hash of the row number, so that batches keep
their size and all other rows keep their positions. Processes that see the same files therefore
choose the same rows, without asking each other. Held-out rows neither replace others nor are
replaced. `pinxit prepare` with ``--verify 1`` makes damaged shards again.
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
from jaxtyping import Int, UInt8

from pinxit.config import UsageError, choice
from pinxit.data.image_column import IMAGE_COLUMNS, IMAGES, LATENTS
from pinxit.data.images.decode import decode_jpeg
from pinxit.data.packed.packed_manifest import PackedManifest
from pinxit.data.prepared.dataset import Root, read_manifest
from pinxit.data.prepared.manifest import Unfinished
from pinxit.data.prepared.packed_records import PackedRecords
from pinxit.data.prepared.record_source import RecordSource
from pinxit.data.prepared.shard_records import ShardRecords
from pinxit.data.prepared.shards import DamagedShard, shape_name, unpack
from pinxit.data.stores.byte_store import ByteStore, open_store

ColumnsFn = Callable[[Sequence[str]], dict[str, np.ndarray]]
"""Converts captions to arrays with one row per caption, such as ``token_ids``."""
MULTIPLE = 8
"""Stored text is padded to a multiple of this many tokens."""
BLOCK = 64
"""The number of rows that are read together when searching for a key, or for images."""


class PreparedRows:
    """The rows of a prepared dataset, as `loader.Rows`.

    The columns are ``latents`` (float32, or `dtype`) or ``images`` (uint8), and the arrays that
    `columns` makes from the captions. With `text`, there are also ``text_tokens`` and ``text_mask``
    (and ``text_pooled``, if it is stored), with `suffix` appended to their names.
    """

    def __init__(
        self,
        root: Root,
        *,
        kind: str = LATENTS,
        shape: tuple[int, ...] | None = None,
        columns: ColumnsFn | None = None,
        text: bool = False,
        suffix: str = "",
        dtype: np.dtype | type = np.float32,
        open_shards: int | None = None,
        hash_first: bool | None = None,
        only_held_out: bool = False,
        patience: Callable[[ByteStore], ByteStore] = lambda store: store,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Opens the dataset in `root`, a folder or the URL of a packed dataset.

        `kind` is "latents" or "images". `shape` (h, w, c) selects the rows of one shape.
        `open_shards` and `hash_first` are those of `UnitReaders`, whose defaults suit any dataset.
        With `only_held_out`, the rest of the images may be missing from a packed dataset.
        `patience` wraps the store of a packed dataset, so that its reads wait during an outage.
        `say` receives warnings about damage. Raises `Unfinished` if the preparation is not
        finished, and ValueError if the dataset lacks the requested data.
        """
        choice("kind", kind, IMAGE_COLUMNS)
        self.root = root
        self.kind = kind
        self.manifest = read_manifest(root)
        if kind == LATENTS and self.manifest.latents is None:
            raise Unfinished(
                "the dataset has images but no latents: run the second stage (--stage latents)"
            )
        self.columns = columns
        self.suffix = suffix
        self.dtype = np.dtype(dtype)
        self.patience = patience
        self.say = say
        self.replaced = 0
        """The number of rows that `take` has replaced so far."""
        self.too_damaged: Callable[[str], None] = _refuse
        """Receives the reason once too much is unusable. By default it raises `DamagedShard`; if it
        returns, the remaining rows are used."""
        folders = (kind, "text") if text else (kind,)
        if absent := [folder for folder in folders if folder not in self.manifest.contents]:
            valid = ", ".join(self.manifest.contents) or "none"
            raise UsageError(f"{root} holds no {absent[0]}; it holds: {valid}")
        self._text = self.manifest.text if text else None
        self._lock = threading.RLock()
        self._records = self._opened(text, shape, open_shards, hash_first, only_held_out)
        self.buckets = self._records.buckets
        self._borders = [bucket.stop for bucket in self.buckets]
        """Row numbers that replacements never cross: the ends of buckets and of held-out rows."""

    def _opened(
        self,
        text: bool,
        shape: tuple[int, ...] | None,
        open_shards: int | None,
        hash_first: bool | None,
        only_held_out: bool,
    ) -> RecordSource:
        """Opens the records of the rows."""
        kind, say, manifest = self.kind, self.say, self.manifest
        if not isinstance(manifest, PackedManifest):
            return ShardRecords(
                Path(self.root),
                manifest,
                kind=kind,
                text=text,
                shape=shape,
                open_shards=open_shards,
                hash_first=hash_first,
                lock=self._lock,
                say=say,
            )
        if kind == IMAGES and not only_held_out and manifest.held_out_images is not None:
            raise UsageError(
                f"{self.root} holds only the images of {manifest.held_out_images} held-out rows; "
                "pack it with a larger --held_out_images to read all images"
            )
        store = self.patience(open_store(str(self.root)))
        return PackedRecords(store, manifest, kind=kind, text=text, shape=shape, say=say)

    def __len__(self) -> int:
        return len(self._records)

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
        """Returns the rows whose shards or records match the manifest."""
        with self._lock:
            usable = self._records.are_sound(rows.tolist())
            self._check()
            return rows[usable]

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Returns the row numbers of those keys that exist, by key.

        The search starts at the end of each key's unit, or of each bucket of a packed dataset.
        """
        row_of_key: dict[str, int] = {}
        for start, end, keys_there in self._records.spans(set(keys)):
            for stop in range(end, start, -BLOCK):
                remaining = keys_there - row_of_key.keys()
                if not remaining:
                    break
                rows = self.sound(np.arange(max(start, stop - BLOCK), stop))
                metas = self.meta(rows) if len(rows) else []
                hits = {m["key"]: int(n) for m, n in zip(metas, rows, strict=True)}
                row_of_key |= {key: hits[key] for key in remaining & hits.keys()}
        return row_of_key

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays of these rows, which must be of one bucket.

        Raises `DamagedShard` if too many shards are damaged.
        """
        records = self._read(rows, count=True)
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

    def images(self, rows: Int[np.ndarray, " b"]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Returns the images of these rows, whose shapes may differ."""
        images: list[np.ndarray] = []
        for start in range(0, len(rows), BLOCK):
            records = self._read(rows[start : start + BLOCK], count=True)
            parts = [unpack(record[IMAGES])[0] for record in records]
            images += [decode_jpeg(part["jpeg"].tobytes()) for part in parts]
        return images

    def captions(self, rows: Int[np.ndarray, " b"]) -> list[str]:
        """Returns the captions of these rows."""
        return [meta["caption"] for meta in self.meta(rows)]

    def meta(self, rows: Int[np.ndarray, " b"]) -> list[dict[str, Any]]:
        """Returns each row's metadata: key, caption, original (width, height) and crop (a box)."""
        return [unpack(record[self.kind])[1] for record in self._read(rows)]

    @property
    def damaged(self) -> dict[str, str]:
        """Maps each shard or pack with unusable records to the reason."""
        return dict(self._records.reasons)

    def verify_all(self, *, workers: int = 4) -> dict[str, str]:
        """Verifies everything now instead of at its first use. Returns the same as `damaged`."""
        with self._lock:
            self._records.verify_all(workers=workers)
            self._check()
        return self.damaged

    def close(self) -> None:
        """Closes the files."""
        self.end_checks()
        with self._lock:
            self._records.close()

    def end_checks(self) -> None:
        """Ends the thread that hashes shards, without waiting for one that reads."""
        self._records.end_checks()

    # --- from rows to records ---

    def _read(self, rows: Int[np.ndarray, " b"], *, count: bool = False) -> list[dict[str, bytes]]:
        """Returns the records of each row, or of its replacement, by kind. Replacements are added
        to `replaced` if `count`."""
        with self._lock:
            while True:
                self._check()
                usable = [self._usable(int(row)) for row in rows]
                records = self._records.read(usable)
                if records is None:  # a row turned out to be damaged
                    continue
                if count:
                    pairs = zip(rows.tolist(), usable, strict=True)
                    self.replaced += sum(a != b for a, b in pairs)
                return records

    # --- damage ---

    def _check(self) -> None:
        """Calls `too_damaged` if too much is unusable."""
        if excess := self._records.excess():
            self.too_damaged(
                f"{excess} of {self.root} cannot be used "
                f"({'; '.join(list(self._records.reasons.values())[:3])}){self._records.remedy()}"
            )

    def _usable(self, row: int) -> int:
        """Returns the row, or a replacement if it is unusable.

        The replacement depends only on the row and on which others are unusable.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if not self._records.is_bad(row):
            return row
        end = bisect.bisect_right(self._borders, row)
        start, stop = self._borders[end - 1] if end else 0, self._borders[end]
        if self._records.all_bad(start, stop):
            raise DamagedShard(
                f"{self.root}: all rows that could replace row {row} are unusable"
                f"{self._records.remedy()}"
            )
        for attempt in itertools.count():
            digest = hashlib.blake2b(f"{row} {attempt}".encode(), digest_size=8).digest()
            usable = start + int.from_bytes(digest, "little") % (stop - start)
            if not self._records.is_bad(usable):
                return usable
        raise AssertionError

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
