"""Prepared data as rows for the `Loader`: any row at any time, from verified shards only.

What a row number means follows from the manifest alone, never from what happens to be on the disk,
so that all hosts and all restarts agree on the order: batch ``s`` is a function of the seed and of
``s``, and host ``h`` of ``H`` takes the rows ``h, h + H, ...`` of it (`HostLoader`).

A shard is read only after its SHA-256 was found to be the manifest's. A damaged or missing one is
set aside (``<name>.corrupt``), named and counted; each of its rows is replaced by another one,
chosen by a hash of the row, so that batches keep their size and the order of all others stands.
Running the preparation again makes the shard anew.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from pinxit.config import UsageError, choice
from pinxit.data.loader import Loader, Rows
from pinxit.data.manifest import Manifest, Unfinished
from pinxit.data.prepare_latents import parse_shape, set_aside
from pinxit.data.shards import DamagedShard, ShardInfo, ShardReader, unpack, verify

ColumnsFn = Callable[[Sequence[str]], dict[str, np.ndarray]]
"""Captions to arrays with one row each, such as ``token_ids``."""
MULTIPLE = 8
"""Stored text is padded to a multiple of this many tokens."""
TOLERANCE = 0.05
"""Share of the shards that may be damaged; one may be in any case."""


@dataclass(frozen=True)
class _Part:
    """The rows of one unit."""

    files: dict[str, ShardInfo]
    """Folder to shard; all are verified before one is read."""
    first: int
    """Record of the first row; records of other shapes may be before and behind."""
    count: int


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
        kind: str = "latents",
        shape: tuple[int, ...] | None = None,
        columns: ColumnsFn | None = None,
        text: bool = False,
        suffix: str = "",
        dtype: np.dtype | type = np.float32,
        open_shards: int = 128,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`kind` is "latents" or "images"; `shape` (h, w, c) chooses among latents of several
        shapes; `say` is told of damage.

        Raises `Unfinished` if the preparation is not at its end, and ValueError if the dataset has
        not what is asked for.
        """
        choice("kind", kind, ("latents", "images"))
        self.root = root
        self.kind = kind
        self.manifest = Manifest.read(root)
        self.shape = _shape(self.manifest, shape) if kind == "latents" else None
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
            raise ValueError(f"{root}: holds no {absent[0]}; it holds: {valid}")
        self._text = self.manifest.text if text else None
        self._parts = _parts(self.manifest, folders, self.shape)
        self._ends = np.cumsum([part.count for part in self._parts], dtype=np.int64)
        self._bad: set[int] = set()
        self._verified: set[int] = set()
        self._open: OrderedDict[int, dict[str, ShardReader]] = OrderedDict()
        self._open_shards = open_shards
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """The arrays of these rows. `DamagedShard` when too many shards are damaged."""
        records = self._records(rows)
        main = [unpack(record[self.kind]) for record in records]
        arrays: dict[str, np.ndarray] = {}
        if self.kind == "latents":
            arrays["latents"] = np.stack([part["latents"] for part, _ in main]).astype(self.dtype)
        else:
            arrays["images"] = np.stack([_pixels(part["jpeg"]) for part, _ in main])
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
        left = [i for i in range(len(self._parts)) if i not in self._verified | self._bad]
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
                numbers = np.searchsorted(self._ends, usable, side="right").tolist()
                found: list[dict[str, bytes]] = [{} for _ in usable]
                damaged = False
                for number in sorted(set(numbers)):
                    places = [i for i, other in enumerate(numbers) if other == number]
                    damaged |= not self._read(number, places, usable, found)
                if not damaged:
                    self.replaced += sum(a != b for a, b in zip(rows, usable, strict=True))
                    return found

    def _read(
        self, number: int, places: list[int], rows: list[int], found: list[dict[str, bytes]]
    ) -> bool:
        """Reads the rows at `places` from one unit into `found`; False if it is damaged."""
        part = self._parts[number]
        start = int(self._ends[number]) - part.count - part.first
        folder = ""
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
        part = self._parts[number]
        readers = {name: ShardReader(self._path(name, info)) for name, info in part.files.items()}
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
        for folder, info in self._parts[number].files.items():
            try:
                verify(self._path(folder, info), info)
            except DamagedShard as error:
                return folder, str(error)
        return None

    def _quarantine(self, number: int, folder: str, reason: str) -> None:
        """Takes a unit out of use and sets its damaged shard aside."""
        self._bad.add(number)
        if number in self._open:
            _close(self._open.pop(number))
        info = self._parts[number].files[folder]
        done = set_aside(self._path(folder, info))
        self.quarantined[f"{folder}/{info.name}"] = reason
        self.say(f"warning: {folder}: {reason}; {done}; its rows are replaced by others")
        self._check()

    def _check(self) -> None:
        """Refuses to go on with what is left if that is too little."""
        allowed = max(1, int(TOLERANCE * len(self._parts)))
        if len(self._bad) > min(allowed, len(self._parts) - 1):
            raise DamagedShard(
                f"{self.root}: {len(self._bad)} of {len(self._parts)} shards are damaged or "
                f"missing ({', '.join(list(self.quarantined)[:3])}); run the preparation again"
            )

    def _usable(self, row: int) -> int:
        """The row, or if its shard is unusable another one: the same for the same damage."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        attempt, usable = 0, row
        while self._bad and int(np.searchsorted(self._ends, usable, side="right")) in self._bad:
            digest = hashlib.blake2b(f"{row} {attempt}".encode(), digest_size=8).digest()
            usable = int.from_bytes(digest, "little") % len(self)
            attempt += 1
        return usable

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


class HostLoader(Loader):
    """One host's part of every batch: its rows ``host, host + hosts, ...``.

    `batch_size` is that of the whole batch; the hosts' parts, taken in turns, are the batch that a
    single host reads.
    """

    def __init__(
        self, rows: Rows, *, batch_size: int, seed: int = 0, host: int = 0, hosts: int = 1
    ) -> None:
        """Refuses a batch that the hosts cannot share evenly."""
        super().__init__(rows, batch_size=batch_size, seed=seed)
        if not 0 <= host < hosts:
            raise UsageError("host", host, problem="impossible", valid=f"0 to {hosts - 1}")
        if batch_size % hosts:
            problem = f"not divisible by {hosts} hosts"
            raise UsageError("batch_size", batch_size, problem=problem)
        self.host = host
        self.hosts = hosts

    def row_numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Which rows this host's part of batch `step` holds."""
        return super().row_numbers(step)[self.host :: self.hosts]

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This host's part of batch `step`; ``index`` counts in the whole batch."""
        first = step * self.batch_size + self.host
        index = np.arange(first, first - self.host + self.batch_size, self.hosts) % 2**31
        return {**self.rows.take(self.row_numbers(step)), "index": index.astype(np.int32)}


def _shape(manifest: Manifest, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The latents' shape that is asked for, or the only one."""
    if manifest.latents is None:
        raise Unfinished("the dataset has images and no latents: run the second stage")
    known: dict[str, int] = {}
    for shapes in manifest.latents["shapes"]:
        for name, count in shapes.items():
            known[name] = known.get(name, 0) + count
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
    if shape is None and len(known) == 1:
        return parse_shape(next(iter(known)))
    if shape is None or "x".join(map(str, shape)) not in known:
        raise UsageError("shape", shape, problem="not one of the dataset's", valid=listed or "none")
    return shape


def _parts(
    manifest: Manifest, folders: Sequence[str], shape: tuple[int, ...] | None
) -> list[_Part]:
    """The units that have rows, in the manifest's order."""
    name = "" if shape is None else "x".join(map(str, shape))
    parts = []
    for number in range(len(manifest.units)):
        infos = {folder: manifest.files[folder][number] for folder in folders}
        files = {folder: info for folder, info in infos.items() if info is not None}
        if len(files) < len(folders):
            continue
        first, count = 0, files[folders[0]].count
        if manifest.latents is not None and shape is not None:
            shapes: dict[str, int] = manifest.latents["shapes"][number]
            first = sum(n for other, n in shapes.items() if other < name)
            count = shapes.get(name, 0)
        if count:
            parts.append(_Part(files, first, count))
    return parts


def _pixels(jpeg: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3)."""
    with Image.open(io.BytesIO(jpeg.tobytes()), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def _close(readers: dict[str, ShardReader]) -> None:
    for reader in readers.values():
        reader.close()
