"""Opens, bytes and CPU time for each row, of many shards and of packs:
``python benchmarks/packed_reading.py --shards 800 --batches 20``.

A synthetic dataset of latents is written to a temporary folder, in shards as `pinxit prepare`
writes them, and packed. Batches of shuffled rows are then read from both, in turns: first with
nothing in the page cache ("cold", after posix_fadvise), then again ("warm"). The bytes that the
disk delivers are those of /proc/self/io; opens and reads are counted by strace, if it is there, in
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS_OF_SHARD = 1400
SHAPE = (32, 32, 4)
CAPTION = "a photograph of a red house beside the sea, with a boat and two people in front of it"
FORMS = ("shards, 128 open", "shards", "packs")


def write_dataset(
    root: Path, shards: int, *, shape: tuple[int, ...] = SHAPE, encoders: dict | None = None
) -> None:
    """Writes a dataset of latents, whose shards are copies of a few different ones. `encoders` says
    with which they were made."""
    from pinxit.data.prepared.manifest import FORMAT, Manifest
    from pinxit.data.prepared.shards import ShardInfo, pack, write_shard

    random = np.random.default_rng(0)
    kinds: list[ShardInfo] = []
    for kind in range(min(4, shards)):
        latents = random.standard_normal((ROWS_OF_SHARD, *shape)).astype(np.float16)
        records = (
            pack({"latents": one}, {"key": f"{kind:05d}-000/{row:08d}", "caption": CAPTION,
                                    "original": [640, 480], "crop": [80, 0, 560, 480]})
            for row, one in enumerate(latents)
        )  # fmt: skip
        kinds.append(write_shard(root / "latents" / f"kind-{kind}.array_record", records))
    infos = []
    for number in range(shards):
        kind = kinds[number % len(kinds)]
        name = f"{number:05d}-000.array_record"
        shutil.copyfile(root / "latents" / kind.name, root / "latents" / name)
        infos.append(ShardInfo(name, kind.count, kind.bytes, kind.sha256))
    count = ROWS_OF_SHARD * shards
    channels = shape[-1]
    statistics = {"count": count, "not_finite": 0, "mean": [0.0] * channels}
    statistics |= {"std": [1.0] * channels}
    statistics["shapes"] = [{"x".join(map(str, shape)): ROWS_OF_SHARD}] * shards
    units = tuple(f"{number:05d}-000" for number in range(shards))
    identity = {"format": FORMAT, "source": {"name": "synthetic"}, "image": {"size": 256}}
    identity |= {"encoders": encoders} if encoders is not None else {}
    files = {"latents": tuple(infos)}
    Manifest(identity, units, files, {"ok": count}, statistics).write(root)


def forget(*folders: Path) -> None:
    """Removes the files of folders from the page cache."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def disk_bytes() -> int:
    """Returns the bytes that the disk has delivered to this process."""
    return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])


def opened(form: str, unpacked: Path, packed: Path):
    """Opens a dataset."""
    from pinxit.data.prepared.prepared_rows import PreparedRows

    if form == "packs":
        return PreparedRows(packed)
    return PreparedRows(unpacked, hash_first=False, open_shards=128 if "128" in form else None)


def read(form: str, unpacked: Path, packed: Path, *, batches: int, size: int, start: int) -> dict:
    """Reads shuffled batches, and returns the figures of each row."""
    from pinxit.data.loader import Loader

    rows = opened(form, unpacked, packed)
    loader = Loader(rows, batch_size=size, seed=0)
    numbers = [loader.row_numbers(step) for step in range(start, start + batches)]
    rows.end_checks()
    before, cpu, clock = disk_bytes(), time.process_time(), time.perf_counter()
    for batch in numbers:
        rows.take(batch)
    count = max(1, batches * size)
    figures = {
        "disk_bytes": (disk_bytes() - before) / count,
        "cpu_us": (time.process_time() - cpu) / count * 1e6,
        "wall_us": (time.perf_counter() - clock) / count * 1e6,
    }
    rows.close()
    return figures


def calls(form: str, words: list[str]) -> dict[str, float]:
    """Returns the system calls of a process that reads the batches, without those of its start."""
    if shutil.which("strace") is None:
        return {}
    names = "openat,pread64,read,fstat,newfstatat,fadvise64"
    counts = []
    for batches in ("0", None):
        more = ["--batches", batches] if batches is not None else []
        command = ["strace", "-f", "-c", "-e", f"trace={names}", "-o", "/dev/stdout"]
        command += [sys.executable, __file__, "--only", form, *words, *more]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", text, re.M)
        counts.append({name: int(count) for count, name in found})
    return {name: counts[1].get(name, 0) - counts[0].get(name, 0) for name in counts[1]}


def main() -> None:
    """Writes the datasets, measures, and prints a JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", help="read this form once, for strace")
    parser.add_argument("--folder", help="a folder with the datasets of an earlier call")
    options = parser.parse_args()
    parent = Path(options.folder or tempfile.mkdtemp(prefix="packed-reading-"))
    unpacked, packed = parent / "set", parent / "packed"
    reading = {"batches": options.batches, "size": options.size, "start": 0}
    if options.only:
        read(options.only, unpacked, packed, **reading)
        return
    if not (packed / "packed.json").exists():
        from pinxit.cli.main import main as pinxit

        write_dataset(unpacked, options.shards)
        cpu = time.process_time()
        assert pinxit(["pack", str(unpacked), "--out", str(packed)]) == 0
        print(f"packing: {(time.process_time() - cpu) / options.shards * 1e3:.1f} ms CPU a shard")
    results: dict[str, list[dict]] = {}
    for turn in range(options.turns):
        for form in FORMS:
            forget(unpacked, packed)
            start = turn * options.batches
            for state in ("cold", "warm"):
                figures = read(form, unpacked, packed, **(reading | {"start": start}))
                results.setdefault(f"{form}, {state}", []).append(figures)
    table = {
        name: {key: round(float(np.median([turn[key] for turn in turns])), 1) for key in turns[0]}
        for name, turns in results.items()
    }
    words = ["--folder", str(parent), "--size", str(options.size)]
    words += ["--batches", str(options.batches)]
    for form in FORMS:
        count = options.batches * options.size
        table[f"{form}, calls a row"] = {
            k: round(n / count, 3) for k, n in calls(form, words).items()
        }
    print(json.dumps(table, indent=1))
    if options.folder is None:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
