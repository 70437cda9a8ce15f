"""Compares our loader of prepared latents with WebDataset and with Grain's own reading.

It writes the same latents (float16) and captions twice, as our shards and as WebDataset tars. Each
reader then has a process of its own, and the processes take turns. The readers are

- ``pinxit``: our loader. It reads in a global shuffle, in a thread, and verifies checksums.
- ``grain_threads`` and ``grain_N``: Grain reads the same shards in the same kind of shuffle, with
  its default threads in this process, or with N worker processes. It verifies nothing.
- ``webdataset`` and ``webdataset_N``: WebDataset reads its tars in their order through a shuffle
  buffer, in this process, or in N worker processes of torch's DataLoader.

Readers that are not installed are left out. A reader's figures begin after its first batches, so
that starting processes does not count. CPU time and memory include the worker processes (memory is
the sum of the proportional shares at the end). The script prints medians over the repeats, and
ratios of the others to ours: above 1, ours is faster or smaller.

    pip install webdataset torch
    python benchmarks/loader_vs_others.py --records 20000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

UNIT = 2_000
"""Records of a shard."""
WARM = 8
"""Batches that each reader reads before its time begins."""
READERS = ("pinxit", "grain_threads", "grain_1", "grain_2", "webdataset", "webdataset_1")
NEEDS = {"grain": ("grain",), "webdataset": ("webdataset",), "webdataset_1": ("torch",)}
"""The packages that readers, or readers whose names begin so, need besides ours."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3, help="passes that are measured")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=32, help="side of the latents in cells")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--read", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the two datasets -------------------------------------------------------------------------


def record(number: int, args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """A latent and a caption."""
    shape = (args.side, args.side, args.channels)
    latents = np.random.default_rng(number).normal(size=shape).astype(np.float16)
    return latents, f"a photo of something or other, number {number}, as alt texts go"


def write_ours(root: Path, args: argparse.Namespace) -> Path:
    """A prepared dataset whose images are gone."""
    from pinxit.data.prepared.shards import pack, write_shard
    from pinxit.prepare.gather import gather
    from pinxit.prepare.ledger import Ledger, UnitRecord

    images, ledger, units = Ledger(root, "images"), Ledger(root, "latents"), []
    for stage in (images, ledger):
        stage.begin({"source": {"name": "benchmark"}})
    for start in range(0, args.records, UNIT):
        units.append(f"{start // UNIT:05d}")
        stop = min(start + UNIT, args.records)

        def records(start: int = start, stop: int = stop) -> Iterator[bytes]:
            for number in range(start, stop):
                latents, caption = record(number, args)
                yield pack({"latents": latents}, {"key": f"{number:08d}", "caption": caption})

        info = write_shard(ledger.path("latents", units[-1]), records())
        name = f"{args.side}x{args.side}x{args.channels}"
        zeros = [0.0] * args.channels
        measured = {"shapes": {name: info.count}, "cells": 1, "sum": zeros, "square": zeros}
        measured |= {"not_finite": [], "text": None}
        counts = {"ok": info.count}
        images.commit(UnitRecord(units[-1], {}, counts))
        ledger.commit(UnitRecord(units[-1], {"latents": info}, counts, measured=measured))
    gather(root, units, "latents").write(root)
    return root


def write_theirs(root: Path, args: argparse.Namespace) -> list[str]:
    """Tars of .npy and .txt files."""
    root.mkdir()
    paths = []
    for start in range(0, args.records, UNIT):
        paths.append(str(root / f"{start // UNIT:05d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for number in range(start, min(start + UNIT, args.records)):
                latents, caption = record(number, args)
                buffer = io.BytesIO()
                np.save(buffer, latents)
                for suffix, data in (("npy", buffer.getvalue()), ("txt", caption.encode())):
                    entry = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return paths


# --- the readers, each in its own process ------------------------------------------------------


def pinxit_batches(root: Path, args: argparse.Namespace) -> Iterator[Any]:
    from pinxit.data.loader import Loader
    from pinxit.data.prepared.prepared_rows import PreparedRows

    rows = PreparedRows(
        root / "ours", dtype=np.float16, columns=lambda captions: {"caption": np.array(captions)}
    )
    rows.verify_all()
    yield from Loader(rows, batch_size=args.batch).batches(0, 10**9)


def latent_and_caption(content: bytes) -> dict[str, Any]:
    """Reads one of our records, for Grain."""
    from pinxit.data.prepared.shards import unpack

    arrays, meta = unpack(content)
    return {"latents": arrays["latents"], "caption": meta["caption"]}


def grain_batches(root: Path, args: argparse.Namespace, workers: int | None) -> Iterator[Any]:
    import grain

    paths = sorted(map(str, (root / "ours" / "latents").glob("*.array_record")))
    data = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths))
    data = data.seed(0).shuffle().repeat().map(latent_and_caption)
    batches = data.batch(args.batch).to_iter_dataset()
    if workers is not None:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    yield from batches


def webdataset_batches(root: Path, args: argparse.Namespace, workers: int) -> Iterator[Any]:
    import webdataset as wds

    paths = sorted(map(str, (root / "theirs").glob("*.tar")))
    data = wds.WebDataset(paths, shardshuffle=len(paths)).shuffle(1000).decode()
    data = data.to_tuple("npy", "txt").batched(args.batch, partial=False)
    if workers:
        data = wds.WebLoader(data, batch_size=None, num_workers=workers, persistent_workers=True)
    while True:
        yield from data


def batches_of(reader: str, root: Path, args: argparse.Namespace) -> Iterator[Any]:
    """The endless batches of a reader."""
    name, _, workers = reader.partition("_")
    if name == "pinxit":
        return pinxit_batches(root, args)
    if name == "grain":
        return grain_batches(root, args, int(workers) if workers.isdigit() else None)
    return webdataset_batches(root, args, int(workers or 0))


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Reads the epochs with one reader: records, seconds, CPU seconds and MiB of memory."""
    import psutil

    me = psutil.Process()
    batches = batches_of(args.read, args.root, args)
    for _ in range(WARM):
        next(batches)

    def cpu_seconds() -> float:
        own = me.cpu_times()
        times = [own, *(one.cpu_times() for one in me.children(recursive=True))]
        ended = own.children_user + own.children_system
        return sum(one.user + one.system for one in times) + ended

    begun, cpu, records = time.perf_counter(), cpu_seconds(), 0
    for _ in range(args.epochs * args.records // args.batch):
        batch = next(batches)
        records += len(batch["latents"] if isinstance(batch, dict) else batch[0])
    seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    memory = sum(getattr(one.memory_full_info(), "pss", 0) for one in
                 (me, *me.children(recursive=True)))  # fmt: skip
    return {"records": records, "seconds": seconds, "cpu": cpu, "memory": memory / 2**20}


# --- the comparison ---------------------------------------------------------------------------


def can_run(reader: str) -> bool:
    """Says which package is missing, if one is."""
    needed = [name for key, names in NEEDS.items() if reader.startswith(key) for name in names]
    missing = [name for name in needed if not find_spec(name)]
    if missing:
        print(f"{reader} is skipped: {', '.join(missing)} is not installed")
    return not missing


def one_turn(reader: str, root: Path) -> dict[str, float]:
    """Runs a reader in its own process, and returns its figures."""
    command = [sys.executable, __file__, *sys.argv[1:], "--read", reader, "--root", str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    args = arguments()
    if args.read:
        print(json.dumps(measure(args)), flush=True)
        sys.stdout.flush()
        os._exit(0)  # worker processes need not be waited for
    readers = [reader for reader in args.readers if can_run(reader)]
    turns: dict[str, list[dict[str, float]]] = {reader: [] for reader in readers}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_ours(root / "ours", args)
        if any(reader.startswith("webdataset") for reader in readers):
            write_theirs(root / "theirs", args)
        for _ in range(args.repeats):
            for reader in readers:
                turns[reader].append(one_turn(reader, root))
    print("| reader | records/s | records per CPU second | memory, MiB | ours is better by |")
    print("|---|---|---|---|---|")
    first: tuple[float, float, float] | None = None
    for reader in readers:
        wall, cpu, memory = (
            median(figure(turn) for turn in turns[reader])
            for figure in (
                lambda turn: turn["records"] / turn["seconds"],
                lambda turn: turn["records"] / turn["cpu"],
                lambda turn: turn["memory"],
            )
        )
        first = first or (wall, cpu, memory)
        ratios = f"wall {first[0] / wall:.2f}, CPU {first[1] / cpu:.2f}, "
        ratios += f"memory {memory / first[2]:.2f}"
        print(f"| {reader} | {wall:.0f} | {cpu:.0f} | {memory:.0f} | {ratios} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
