"""Compares our loader of prepared latents with WebDataset, in records per second.

It writes the same latents (float16) and captions twice, as our shards and as WebDataset tars, and
reads batches from both in turns, in one process each without workers. Ours reads in a global
shuffle by index and verifies checksums before use; theirs reads in the order of the tars through a
shuffle buffer. The script prints the medians of records per wall second and per CPU second, and
their ratios; above 1, ours is faster.

    pip install webdataset
    python benchmarks/loader_vs_webdataset.py --records 20000
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

UNIT = 2_000
"""Records of a shard."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=32, help="side of the latents in cells")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def record(number: int, args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """A latent and a caption."""
    shape = (args.side, args.side, args.channels)
    latents = np.random.default_rng(number).normal(size=shape).astype(np.float16)
    return latents, f"a photo of something or other, number {number}, as alt texts go"


def write_ours(root: Path, args: argparse.Namespace) -> Path:
    """A prepared dataset whose images are gone."""
    from pinxit.data.prepared.shards import pack, write_shard
    from pinxit.prepare.ledger import Ledger, UnitRecord, gather

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


def ours(root: Path, args: argparse.Namespace) -> Callable[[], int]:
    from pinxit.data.loader import Loader
    from pinxit.data.prepared.prepared_rows import PreparedRows

    rows = PreparedRows(
        root, dtype=np.float16, columns=lambda captions: {"caption": np.array(captions)}
    )
    rows.verify_all()
    loader = Loader(rows, batch_size=args.batch)

    def read() -> int:
        steps = args.records // args.batch
        return sum(len(batch["latents"]) for batch in loader.batches(0, steps))

    return read


def theirs(paths: list[str], args: argparse.Namespace) -> Callable[[], int]:
    import webdataset as wds

    def read() -> int:
        data = wds.WebDataset(paths, shardshuffle=len(paths)).shuffle(1000).decode()
        batches = data.to_tuple("npy", "txt").batched(args.batch, partial=False)
        return sum(len(latents) for latents, _ in batches)

    return read


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        readers = {"pinxit": ours(write_ours(Path(folder) / "ours", args), args)}
        if find_spec("webdataset"):
            paths = write_theirs(Path(folder) / "theirs", args)
            readers["webdataset"] = theirs(paths, args)
        else:
            print("webdataset is skipped: it is not installed; run pip install webdataset")
        walls: dict[str, list[float]] = {name: [] for name in readers}
        cpus: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(args.repeats):
            for name, read in readers.items():
                begun, cpu = time.perf_counter(), time.process_time()
                count = read()
                walls[name].append(count / (time.perf_counter() - begun))
                cpus[name].append(count / (time.process_time() - cpu))
        for name in readers:
            print(f"{name}: {median(walls[name]):.0f} records/s, {median(cpus[name]):.0f} a CPU-s")
        if "webdataset" in readers:
            wall = median(walls["pinxit"]) / median(walls["webdataset"])
            cpu = median(cpus["pinxit"]) / median(cpus["webdataset"])
            print(f"ratio (above 1, ours is faster): wall {wall:.2f}, CPU {cpu:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
