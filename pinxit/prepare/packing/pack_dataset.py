"""Packs a prepared dataset: gathers the records of its many shards in a few large files.

Each shard is compared with its SHA-256 before its records are used, by threads that work ahead.
Their reading brings the shard into memory, so that the disk reads it once.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, plain
from pinxit.data.packed.packed_manifest import (
    FORMAT,
    PACKED,
    PACKS,
    PackedManifest,
    PackedShape,
    manifest_text,
)
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.shards import DamagedShard, ShardReader, verify_shard
from pinxit.data.stores.byte_store import LocalStore
from pinxit.files import sweep
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.packing.pack_plan import KindPlan, plan_packs
from pinxit.prepare.packing.pack_series import PackOutput, PackSeries

SETTINGS = "packing.json"
BLOCK = 64
"""The number of records that are read together."""


@dataclass(frozen=True)
class PackSettings:
    """The settings that, with the dataset, determine the bytes of the packs."""

    pack_bytes: int
    """The size of a pack, which only a single larger record exceeds."""
    held_out_images: int
    """The number of held-out rows whose images are packed, in a dataset with latents."""


PackWatchFn = Callable[[str, int, int], None]
"""Receives the kind that is being packed, the records that are done, and their total."""


def pack_dataset(
    root: Path,
    output: PackOutput,
    settings: PackSettings,
    *,
    plans: Sequence[KindPlan] | None = None,
    workers: int = 2,
    watch: PackWatchFn = lambda kind, done, total: None,
) -> PackedManifest:
    """Packs the dataset in `root`, or continues, and returns the manifest of the packed dataset.

    `plans` are those of `plan_packs`, if the caller has them. `workers` threads verify shards
    ahead. Raises `UsageError` for a damaged shard, for packs with other settings, and if another
    command writes to the same folder; raises `DiskFull` if there is no room.
    """
    manifest = Manifest.read(root)
    with contextlib.ExitStack() as stack:
        if isinstance(output.store, LocalStore):
            stack.enter_context(locked(output.store.folder, InlineEngine()))
            for folder in (output.store.folder, output.store.folder / PACKS):
                sweep(folder)
        described = _begin(output, manifest, settings)
        if plans is None:
            plans = plan_packs(root, manifest, settings.held_out_images)
        kinds = {
            plan.kind: _pack_kind(root, output, plan, settings, workers, watch) for plan in plans
        }
        packed = PackedManifest(
            dataset=manifest.fingerprint(),
            identity=plain(manifest.identity),
            counts=manifest.counts,
            kinds=kinds,
            latents=_whole(manifest.latents),
            text=manifest.text,
            images=_whole(manifest.images),
            units=len(manifest.units),
            skipped=len(manifest.skipped),
            settings=described,
        )
        output.write(PACKED, packed.to_bytes())
        return packed


def _begin(output: PackOutput, manifest: Manifest, settings: PackSettings) -> dict[str, Any]:
    """Writes the settings, or compares them with those of the packs that are there."""
    described = {
        "format": FORMAT,
        "dataset": manifest.fingerprint(),
        "pack_bytes": settings.pack_bytes,
        "held_out_images": settings.held_out_images,
    }
    content = manifest_text(described).encode()
    try:
        existing = output.store.read(SETTINGS)
    except FileNotFoundError:
        output.write(SETTINGS, content)
        return described
    if existing != content:
        raise UsageError(
            f"out: {output.store.root} has packs of another dataset or with other settings "
            f"({' '.join(existing.decode(errors='replace').split())}, now "
            f"{' '.join(content.decode().split())}); pack into another folder"
        )
    return described


def _pack_kind(
    root: Path,
    output: PackOutput,
    plan: KindPlan,
    settings: PackSettings,
    workers: int,
    watch: PackWatchFn,
) -> tuple[PackedShape, ...]:
    """Writes the packs of one kind that are not finished yet, and returns all of them."""
    with contextlib.ExitStack() as stack:
        series = [
            stack.enter_context(
                PackSeries(output, shape, kind=plan.kind, limit=settings.pack_bytes)
            )
            for shape in plan.shapes
        ]
        todo = [
            unit
            for unit in plan.files
            if any(p.row + p.count > series[p.bucket].next_row for p in plan.parts[unit])
        ]
        done = sum(one.next_row - one.shape.first for one in series)
        watch(plan.kind, done, plan.rows)
        paths = {unit: root / plan.kind / plan.files[unit].name for unit in todo}
        for unit in _verified(paths, plan, workers):
            with ShardReader(paths[unit]) as reader:
                if len(reader) != plan.files[unit].count:
                    count = plan.files[unit].count
                    problem = f"{paths[unit].name} has {len(reader)} records instead of {count}"
                    raise DamagedShard(problem)
                for part in plan.parts[unit]:
                    one = series[part.bucket]
                    skipped = max(0, one.next_row - part.row)
                    for block in _blocks(part.first + skipped, part.first + part.count):
                        for record in reader.read(block):
                            one.add(record)
                        done += len(block)
                        watch(plan.kind, done, plan.rows)
    return tuple(one.finished for one in series)


def _blocks(start: int, stop: int) -> Iterator[range]:
    """Yields ranges of records that are read together."""
    for first in range(start, stop, BLOCK):
        yield range(first, min(first + BLOCK, stop))


def _verified(paths: dict[int, Path], plan: KindPlan, workers: int) -> Iterator[int]:
    """Yields the units in order once their shards are verified. Threads verify the next ones."""
    units = iter(paths)
    ahead: deque[tuple[int, Future[None]]] = deque()

    def submit(count: int) -> None:
        for unit in itertools.islice(units, count):
            ahead.append((unit, pool.submit(verify_shard, paths[unit], plan.files[unit])))

    with ThreadPoolExecutor(workers) as pool:
        try:
            submit(workers + 1)
            while ahead:
                unit, verified = ahead.popleft()
                try:
                    verified.result()
                except DamagedShard as error:
                    raise UsageError(
                        f"{plan.kind}: {error}; nothing of it was packed. Make it again: run the "
                        "same `pinxit prepare` command with --verify 1"
                    ) from error
                yield unit
                submit(1)
        finally:
            pool.shutdown(cancel_futures=True)


def _whole(statistics: Any) -> dict[str, Any] | None:
    """Returns statistics whose shapes are counted over the whole dataset, not for each unit."""
    if statistics is None:
        return None
    total: dict[str, int] = {}
    for shapes in statistics.get("shapes", ()):
        for name, count in shapes.items():
            total[name] = total.get(name, 0) + count
    return {**statistics, "shapes": [dict(sorted(total.items()))]}
