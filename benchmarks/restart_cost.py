"""Measures what it costs to give `pinxit prepare` again when nothing is left to do.

It writes a synthetic dataset of COYO's size (74,700 units of 10,000 rows) whose commit records are
like real ones and whose shards are empty files of the recorded sizes. Then it runs the command on
it, in a process of its own, and prints the seconds, the CPU time, the memory and the system calls.
With `--older`, the path of an older checkout, that checkout writes its own layout of the same
dataset and runs the same command. The two take turns.

    python benchmarks/restart_cost.py --older ../older
    python benchmarks/restart_cost.py --units 2000 --stage images
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

COYO = 74_700
"""The number of units of 10,000 rows in COYO."""
NAME = "restart_cost"
"""The name of the synthetic source."""
VARIABLE = "RESTART_COST_UNITS"
"""The environment variable with the number of units of the synthetic source."""
FILE = Path(__file__).resolve()
ROOT = FILE.parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--units", type=int, default=COYO)
    parser.add_argument("--older", type=Path, help="the path of an older checkout")
    parser.add_argument("--stage", choices=("images", "all"), default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the datasets are written and kept")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the synthetic source and its dataset -----------------------------------------------------


@dataclass(frozen=True)
class SyntheticSource:
    """A source that lists units and has no rows that could be read."""

    count_: int
    name: str = NAME
    revision: str | None = "1"
    has_images: bool = False
    unit_rows: int | None = 10_000
    columns: Any = None
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Any]:
        from pinxit.data.row import Unit

        ids = unit_ids(self.count_)
        return [Unit(name, "table", part, 10_000) for part, name in enumerate(ids)][:limit]

    def read(self, unit: Any) -> Any:
        raise RuntimeError(f"nothing is left to do, and unit {unit.id} is read")

    def count(self, unit: Any) -> int:
        return 10_000


def register() -> None:
    """Makes the synthetic source known to `pinxit prepare`, which imports this file for it."""
    from pinxit.data.sources.catalogue import SOURCES

    SOURCES[NAME] = lambda request: SyntheticSource(int(os.environ[VARIABLE]))


if VARIABLE in os.environ and __name__ != "__main__":
    register()


def unit_ids(count: int) -> list[str]:
    """Returns the ids of the units, as COYO's are: the number of the file, and that in the file."""
    return [f"{number // 600:05d}-{number % 600:03d}" for number in range(count)]


def records_of(unit: str, number: int) -> dict[str, Any]:
    """Returns the commit records of a unit in both stages, with the sizes of real ones."""
    import numpy as np

    from pinxit.data.filters.histograms import Histograms
    from pinxit.data.prepared.shards import ShardInfo
    from pinxit.prepare.ledger import UnitRecord

    rng = np.random.default_rng(number)

    def info(suffix: str, count: int, size: int) -> ShardInfo:
        return ShardInfo(f"{unit}{suffix}", count, size, rng.bytes(32).hex())

    kept = 1300 + number % 150
    shard = info(".array_record", kept, 40_000_000 + number)
    histograms = Histograms()
    for one in histograms.by_name.values():
        one.counts[:] = rng.integers(0, 400, len(one.counts))
    statuses = ("filtered_clip_similarity", "filtered_side", "http_404", "timeout", "dns")
    counts = {"ok": kept} | {name: int(rng.integers(1, 2000)) for name in statuses}
    examples = {name: f"https://host{number % 977}.example/{name}/{number}.jpg" for name in counts}
    measured = {
        "histograms": histograms.to_json(),
        "shapes": {"256x256x3": kept},
        "examples": examples,
        "enlarged": {"rows": 0, "example": ""},
    }
    outcomes = info(".parquet", 10_000, 400_000 + number)
    images = UnitRecord(
        unit, {"outcomes": outcomes, "images": shard}, counts, measured=measured, seconds=61.5
    )
    sums = {name: rng.normal(size=4).tolist() for name in ("sum", "square")}
    sums["square"] = [1e6 + abs(value) for value in sums["square"]]
    encoded = {"shapes": {"32x32x4": kept}, "cells": 1024 * kept, **sums}
    latents = UnitRecord(
        unit,
        {"latents": info(".array_record", kept, 11_000_000 + number)},
        {"ok": kept},
        source=shard.sha256,
        measured={**encoded, "not_finite": [], "text": None},
        seconds=3.25,
    )
    return {"images": images, "latents": latents}


def fill(folder: Path, count: int, stages: tuple[str, ...]) -> None:
    """Writes the dataset in the layout of the Pinxit that is imported."""
    commits: dict[str, list[dict[str, Any]]] = {stage: [] for stage in stages}
    for number, unit in enumerate(unit_ids(count)):
        records = records_of(unit, number)
        for stage in stages:
            record = records[stage]
            commits[stage].append(asdict(record))
            for name, info in record.files.items():
                path = folder / name / info.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.truncate(info.bytes)
    for stage, lines in commits.items():
        write_commits(folder / "units" / stage, lines)


def write_commits(folder: Path, records: list[dict[str, Any]]) -> None:
    """Writes the commit records of a stage: as a log, or as one file each in older versions."""
    try:
        from pinxit.prepare.commit_log import CommitLog  # pyrefly: ignore
    except ImportError:
        import json

        folder.mkdir(parents=True)
        for record in records:
            text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
            (folder / f"{record['unit']}.json").write_text(text + "\n", encoding="utf-8")
        return
    CommitLog(folder).append(records)


# --- the command ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one command cost."""

    seconds: float
    cpu: float
    """User and system seconds of all its processes."""
    memory: float
    """The largest memory of its process, in MB."""


def command_of(folder: Path, stage: str) -> list[str]:
    words = [sys.executable, "-m", "pinxit", "--extensions", str(FILE), "prepare", NAME]
    return [*words, "--out", str(folder), "--vae", "tiny", "--stage", stage]


def environment_of(checkout: Path, count: int) -> dict[str, str]:
    more = {"PYTHONPATH": str(checkout), VARIABLE: str(count), "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **more}


def run(command: list[str], environment: dict[str, str], log: Path) -> Cost:
    """Runs a command, and returns its cost. Raises RuntimeError if it fails."""
    started = time.monotonic()
    with log.open("wb") as file:
        # not in a checkout, whose package would come before that of PYTHONPATH
        process = subprocess.Popen(
            command, env=environment, stderr=file, stdout=file, cwd=log.parent
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {log.read_text()[-2000:]}")
    seconds = time.monotonic() - started
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def system_calls(command: list[str], environment: dict[str, str], log: Path) -> dict[str, int]:
    """Returns the number of system calls of a command, and of some kinds; empty without strace."""
    if shutil.which("strace") is None:
        return {}
    summary = log.with_suffix(".strace")
    run(["strace", "-f", "-c", "-o", str(summary), *command], environment, log)
    calls: dict[str, int] = {}
    for line in summary.read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and re.fullmatch(r"[\d.]+", words[0]) and words[3].isdigit():
            calls[words[-1]] = int(words[3])
    kinds = {
        "opens": ("openat", "open"),
        "stats": ("newfstatat", "stat", "lstat", "statx", "fstat"),
        "reads": ("read", "pread64"),
        "listings": ("getdents64",),
    }
    shown = {kind: sum(calls.get(name, 0) for name in names) for kind, names in kinds.items()}
    return {"all": calls.get("total", sum(calls.values())), **shown}


def main() -> None:
    options = arguments()
    stages = ("images",) if options.stage == "images" else ("images", "latents")
    if options.fill is not None:
        fill(options.fill, options.units, stages)
        return
    checkouts = {"older": options.older.resolve()} if options.older else {}
    checkouts["this"] = ROOT
    with tempfile.TemporaryDirectory() as temporary:
        where = (options.folder or Path(temporary)).resolve()
        where.mkdir(parents=True, exist_ok=True)
        costs: dict[str, list[Cost]] = {name: [] for name in checkouts}
        setups = {}
        for name, checkout in checkouts.items():
            folder, log = where / name, where / f"{name}.log"
            environment = environment_of(checkout, options.units)
            words = [sys.executable, str(FILE), "--fill", str(folder), "--stage", options.stage]
            if not folder.exists():
                run([*words, "--units", str(options.units)], environment, log)
            setups[name] = command_of(folder, options.stage), environment, log
            first = run(*setups[name])
            print(f"{name}: the first command, which writes the manifest: {line(first)}")
        for _ in range(options.repeats):
            for name, setup in setups.items():
                costs[name].append(run(*setup))
        print(f"{options.units:,} units, stage {options.stage}, medians of {options.repeats}:")
        for name, setup in setups.items():
            values = [[getattr(cost, key) for cost in costs[name]] for key in Cost.__annotations__]
            print(f"{name}: {line(Cost(*map(median, values)))}")
            calls = system_calls(*setup)
            print("  system calls: " + ", ".join(f"{k} {n:,}" for k, n in calls.items()))


def line(cost: Cost) -> str:
    return f"{cost.seconds:.1f} s, {cost.cpu:.1f} s of CPU time, {cost.memory:,.0f} MB"


if __name__ == "__main__":
    main()
