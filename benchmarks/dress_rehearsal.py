"""Rehearses COYO on this machine: fetches, encodes and trains on a synthetic one, and says what the
whole would take.

The table is synthetic, and a server on this machine draws the pictures on request
(`synthetic_coyo.py`), with the web's share of dead, slow and hanging hosts. Pinxit's own commands
do the work: the search for duplicates, `pinxit prepare` (images and latents), the same command once
more with nothing to do, and some steps of training. Every figure is of all processes of a command:
wall time, CPU time, the largest memory (PSS, looked at every two seconds) and bytes on the disk.
The server's CPU time is listed by itself, since the web has its own machines. The CPU time of Ray's
actors, for which nobody waits, is looked at every two seconds, too.

    python benchmarks/dress_rehearsal.py --rows 1000000 --out rehearsal
    python benchmarks/dress_rehearsal.py --rows 20000 --engine ray --out rehearsal-ray
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SERVER = Path(__file__).with_name("synthetic_coyo.py")
ALL = 747_000_000
"""Rows of COYO."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--unit_rows", type=int, default=10_000)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--out", type=Path, default=Path("rehearsal"))
    return parser.parse_args()


@dataclass(frozen=True)
class Figures:
    """What a command took."""

    name: str
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of CPU time of all processes."""
    memory: float
    """Largest sum of the private memory (PSS) of its processes, in MiB."""
    disk: int
    """Bytes of the dataset's folder afterwards."""


@contextmanager
def served(port: int) -> Iterator[None]:
    """Serves the pictures. Prints what the server saw afterwards."""
    command = [sys.executable, str(SERVER), "--serve", "--port", str(port)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    try:
        yield
    finally:
        seen, _ = server.communicate()
        count, cpu, most = seen.strip().split(" ", 2)
        print(f"the server answered {int(count):,} requests in {cpu} s of CPU time")
        print(f"most requests at once of one host: {most}")


def look_at(root: int, seconds: dict[int, float]) -> float:
    """Returns the memory of a process and of all below it (PSS, in MiB), and notes the CPU time of
    each."""
    import psutil

    total = 0
    try:
        processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
            seconds[process.pid] = sum(process.cpu_times()[:2])
        except (psutil.Error, OSError):
            continue
    return total / 2**20


def run(name: str, words: list[str], folder: Path) -> Figures:
    """Runs a command of Pinxit, and returns what it took."""
    before, start = os.times(), time.perf_counter()
    log = folder.parent / f"{name.replace(' ', '-')}.log"
    seconds: dict[int, float] = {}
    with log.open("w") as file:
        command = [sys.executable, "-m", "pinxit", *words]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        memory = 0.0
        while process.poll() is None:
            memory = max(memory, look_at(process.pid, seconds))
            time.sleep(2)
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    after, wall = os.times(), time.perf_counter() - start
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    if "ray" in words:
        cpu = max(cpu, sum(seconds.values()))
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    figures = Figures(name, wall, cpu, memory, disk)
    print(row(figures), flush=True)
    return figures


def row(each: Figures) -> str:
    """Returns a line of the table."""
    return (
        f"| {each.name} | {each.wall:,.0f} s | {each.cpu:,.0f} s | {each.memory:,.0f} MiB "
        f"| {each.disk / 1e6:,.0f} MB |"
    )


def rehearse(args: argparse.Namespace, root: Path) -> list[Figures]:
    """Runs all commands, in the order in which people run them."""
    table, data, listed = root / "coyo", root / "prepared", root / "coyo.duplicates"
    size, workers = str(args.image_size), str(args.workers)
    source = ["coyo", "--dataset_path", str(table), "--unit_rows", str(args.unit_rows)]
    search = ["prepare", *source, "--find_duplicates", str(listed), "--workers", workers]
    search += ["--image_size", size]
    prepare = ["prepare", *source, "--out", str(data), "--image_size", size]
    prepare += ["--filters.duplicates", str(listed), "--workers", workers, "--vae", "tiny"]
    prepare += ["--engine", args.engine, "--fetch.allow_networks", "127.0.0.0/8"]
    prepare += ["--fetch.contact", "https://example.org"]
    train = ["train", "--dataset_path", str(data), "--dataset_name", "prepared"]
    train += ["--preset", "debug", "--image_size", size, "--batch_size", "64"]
    train += ["--steps", str(args.steps), "--name", "rehearsal", "--output_dir", str(root)]
    train += ["--text_encoder", "tiny", "--vae", "tiny"]
    return [
        run("search for duplicates", search, root),
        run("images", [*prepare, "--stage", "images"], data),
        run("latents", [*prepare, "--stage", "all"], data),
        run("nothing to do", [*prepare, "--stage", "all"], data),
        run("training", train, data),
    ]


def counts_of(data: Path) -> dict[str, int]:
    """Returns the number of rows by status."""
    return json.loads((data / "manifest.json").read_text())["counts"]


def summary(figures: list[Figures], counts: dict[str, int], rows: int) -> Iterator[str]:
    """Yields lines: what a thousand rows cost, and what all of COYO would."""
    total, kept = sum(counts.values()), counts.get("ok", 0)
    if total != rows:
        raise SystemExit(f"{total:,} of {rows:,} rows have a status")
    dropped = sum(n for name, n in counts.items() if name.startswith("filtered"))
    tried = total - dropped
    yield f"{total:,} rows: {dropped:,} filtered, {tried:,} requested, {kept:,} kept"
    yield ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    for each in figures:
        factor = ALL / total
        yield (
            f"{each.name}: {total / each.wall:,.0f} rows/s, {1000 * each.cpu / total:.2f} CPU "
            f"seconds per thousand rows; {ALL:,} rows: {each.cpu * factor / 3600:,.0f} core hours"
        )


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(SERVER), "--table", str(args.out / "coyo")]
    command += ["--rows", str(args.rows), "--port", str(args.port)]
    subprocess.run(command, check=True)
    print("| command | wall | CPU | memory | dataset |")
    print("|---|---|---|---|---|")
    with served(args.port):
        figures = rehearse(args, args.out)
    counts = counts_of(args.out / "prepared")
    for line in summary(figures, counts, args.rows):
        print(line)
    results = {"rows": args.rows, "counts": counts, "figures": [asdict(each) for each in figures]}
    (args.out / "figures.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
