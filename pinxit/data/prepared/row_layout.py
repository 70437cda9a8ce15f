"""Maps the row numbers of a prepared dataset to records, based on the manifest alone.

The rows of one shape are consecutive (a bucket), unit by unit, and in the order of the unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pinxit.config import UsageError
from pinxit.data.image_column import LATENTS
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.shards import ShardInfo, parse_shape, shape_name


@dataclass(frozen=True, slots=True)
class Bucket:
    """A run of consecutive rows of one shape."""

    shape: tuple[int, ...] | None
    """The shape (h, w, c) of each row; None if all rows have one shape that was not recorded."""
    start: int
    """The first row of the bucket."""
    stop: int
    """The row after the last one."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ShardPart:
    """The consecutive rows of one shape in one unit."""

    unit: int
    """The index of the unit in the manifest."""
    first: int
    """The record of the first row. Records of other shapes may precede and follow the part."""
    count: int
    """The number of rows."""


def shards_of(manifest: Manifest, folders: Sequence[str]) -> dict[int, dict[str, ShardInfo]]:
    """Returns the shards of each unit by folder, for units that have all `folders` and any rows."""
    files = {}
    for number in range(len(manifest.units)):
        infos = {folder: manifest.files[folder][number] for folder in folders}
        there = {folder: info for folder, info in infos.items() if info is not None}
        if len(there) == len(folders) and there[folders[0]].count:
            files[number] = there
    return files


def parts_of(
    manifest: Manifest,
    kind: str,
    files: Mapping[int, Mapping[str, ShardInfo]],
    shape: tuple[int, ...] | None,
) -> tuple[list[ShardPart], tuple[Bucket, ...]]:
    """Returns the parts (shape by shape, then by unit) and the bucket of each shape."""
    about = manifest.latents if kind == LATENTS else manifest.images
    shapes: dict[int, dict[str, int]] = {
        number: about["shapes"][number] if about else {"": infos[kind].count}
        for number, infos in files.items()
    }
    known: Counter[str] = Counter()
    for counts in shapes.values():
        known.update(counts)
    if shape is not None and shape_name(shape) not in known:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
        problem = "not one of the dataset's"
        raise UsageError("shape", shape_name(shape), problem=problem, valid=listed or "none")
    parts: list[ShardPart] = []
    buckets: list[Bucket] = []
    for name in sorted(known) if shape is None else [shape_name(shape)]:
        start = buckets[-1].stop if buckets else 0
        for number, counts in shapes.items():
            if counts.get(name):
                first = sum(count for other, count in counts.items() if other < name)
                parts.append(ShardPart(number, first, counts[name]))
        buckets.append(Bucket(parse_shape(name) if name else None, start, start + known[name]))
    return parts, tuple(buckets)
