"""Decides what is packed: the kinds, the rows of each shape, and the images of held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pinxit.config import UsageError
from pinxit.data.image_column import IMAGES, LATENTS
from pinxit.data.packed.packed_manifest import PackedShape
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.row_layout import Bucket, ShardPart, parts_of, shards_of
from pinxit.data.prepared.shards import DamagedShard, ShardInfo, shape_name

TEXT = "text"
INDEX_BYTES = 8
"""Bytes of a record in the index."""


@dataclass(frozen=True)
class UnitPart:
    """Consecutive records of one unit that are consecutive rows of one shape."""

    bucket: int
    """The index of the shape."""
    row: int
    """The first row, counted within the shape."""
    first: int
    """The record of the first row in the shard."""
    count: int
    """The number of rows."""


@dataclass(frozen=True)
class KindPlan:
    """The records of one kind that are packed."""

    kind: str
    shapes: tuple[PackedShape, ...]
    """The shapes, without packs."""
    files: dict[int, ShardInfo]
    """The shard of each unit, in the order of the units."""
    parts: dict[int, list[UnitPart]]
    """The parts of each unit."""

    @property
    def rows(self) -> int:
        """The number of records to write."""
        return sum(shape.rows - shape.first for shape in self.shapes)

    @property
    def bytes(self) -> int:
        """The approximate size of the packs and their indexes."""
        rows = sum(info.count for info in self.files.values())
        size = sum(info.bytes for info in self.files.values())
        return round(self.rows * (size / max(1, rows) + INDEX_BYTES))


def plan_packs(root: Path, manifest: Manifest, held_out_images: int) -> list[KindPlan]:
    """Returns the kinds to pack. Raises `UsageError` if a shard that the plan needs is damaged."""
    if manifest.latents is None:
        if IMAGES not in manifest.files:
            raise UsageError(f"{root} has neither latents nor images")
        return [_plan(manifest, IMAGES)]
    plans = [_plan(manifest, LATENTS)]
    if TEXT in manifest.files and manifest.text is not None:
        plans.append(_plan(manifest, LATENTS, folder=TEXT))
    if held_out_images and IMAGES in manifest.files:
        first = _first_images(root, held_out_images)
        plans.append(_plan(manifest, IMAGES, first=first))
    return [plan for plan in plans if plan.rows]


def _plan(
    manifest: Manifest, kind: str, *, folder: str = "", first: Sequence[int] | None = None
) -> KindPlan:
    """Returns the plan of one folder, whose rows are those of `kind`. `first` has the first row of
    each shape that is stored (None: all are)."""
    folder = folder or kind
    files = shards_of(manifest, (kind,))
    if folder != kind and shards_of(manifest, (kind, folder)).keys() != files.keys():
        raise UsageError(f"some units have {kind} but no {folder}, so their rows cannot be packed")
    parts, buckets = parts_of(manifest, kind, files, None)
    starts = [0] * len(buckets) if first is None else list(first)
    shapes = tuple(
        PackedShape("" if b.shape is None else shape_name(b.shape), len(b), start, ())
        for b, start in zip(buckets, starts, strict=True)
    )
    of_unit = _by_unit(parts, buckets)
    if first is not None:
        of_unit = {
            unit: listed
            for unit, listed in of_unit.items()
            if any(part.row + part.count > starts[part.bucket] for part in listed)
        }
    infos = {unit: manifest.files[folder][unit] for unit in files if unit in of_unit}
    return KindPlan(folder, shapes, {u: i for u, i in infos.items() if i is not None}, of_unit)


def _by_unit(parts: Sequence[ShardPart], buckets: Sequence[Bucket]) -> dict[int, list[UnitPart]]:
    """Returns the parts of each unit. `parts` is in the order of the rows."""
    of_unit: dict[int, list[UnitPart]] = {}
    bucket = row = 0
    for part in parts:
        while row >= len(buckets[bucket]):
            bucket, row = bucket + 1, 0
        of_unit.setdefault(part.unit, []).append(UnitPart(bucket, row, part.first, part.count))
        row += part.count
    return of_unit


def _first_images(root: Path, count: int) -> list[int]:
    """Returns the first image of each shape to pack, counted within the shape.

    From there on, the images include those of the last `count` rows of latents, and of any smaller
    number. `PreparedRows.hold_out` divides a number among the shapes in proportion, and rounds it.
    """
    with_latents = PreparedRows(root)
    images = PreparedRows(root, kind=IMAGES)
    try:
        numbers = np.concatenate(
            [np.arange(b.stop - n, b.stop) for b, n in _largest_shares(with_latents, count)]
        )
        keys = [meta["key"] for meta in with_latents.meta(numbers)]
        places = np.array(sorted(images.find(keys).values()), np.int64)
        if damaged := with_latents.damaged | images.damaged:
            reasons = "; ".join(list(damaged.values())[:3])
            raise DamagedShard(f"{reasons}; run the same `pinxit prepare` command with --verify 1")
        first = []
        for bucket, share in _largest_shares(images, count):
            inside = places[(places >= bucket.start) & (places < bucket.stop)]
            start = min([bucket.stop - share, *inside[:1].tolist()])
            first.append(start - bucket.start)
        return first
    except DamagedShard as error:
        problem = f"not possible ({error})"
        raise UsageError("held_out_images", count, problem=problem, valid="0 packs none") from error
    finally:
        with_latents.close()
        images.close()


def _largest_shares(rows: PreparedRows, count: int) -> list[tuple[Bucket, int]]:
    """Returns the most rows of each bucket that can be held out, if `count` or fewer are."""
    total = max(1, len(rows))
    return [(b, min(len(b), -(-len(b) * count // total) + 1)) for b in rows.buckets]
