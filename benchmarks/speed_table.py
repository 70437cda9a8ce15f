"""Measures Pinxit's speed beside torch's and writes the table of docs/speed.md.

Each row of `ROWS` is a call of another script in this folder, which measures every side alone in
its process, with the processes in turns. Results are stored in a file, by processor and versions,
so that rows can be measured on different days: ``--only`` chooses them, and ``--missing`` takes
those that this machine lacks. Without options, all rows are measured, which takes about 31 minutes
on two idle cores, and ten more the first time, since torch compiles its programs.

    python benchmarks/speed_table.py
    python benchmarks/speed_table.py --only tiny small --write
    python benchmarks/speed_table.py --only none --write    # only writes the page and the picture

A row that fails is named, and the others go on. It needs the ``parity`` extra. ``--write`` puts the
table into docs/speed.md and draws docs/images/speed.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marked_table import write_table
from process_turns import progress_line
from processor_class import processor, processor_words, versions
from speed_picture import PEERS, days, draw

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
PICTURE = HERE.parent / "docs" / "images" / "speed.png"
RESULTS = HERE / "speed_results.json"
BEGIN, END = "<!-- speed table -->\n", "<!-- end of the speed table -->"
OURS = "pinxit"
HEADER = (
    "| task | ours | wall, eager | wall, compiled | CPU, eager | CPU, compiled | memory, eager "
    "| memory, compiled | ours, MiB | compiling, MiB | share of the limit |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


@dataclass(frozen=True)
class Row:
    """A call of a script, which gives one or more lines of the table."""

    name: str
    script: str
    words: tuple[str, ...]
    minutes: float
    """About how long it takes on two idle cores when torch's compiled programs are cached."""


STEP, ENCODERS, PIPELINE = (
    "train_step_vs_torch.py",
    "encoders_vs_torch.py",
    "sampling_vs_diffusers.py",
)
SHORT = ("--rounds", "2", "--seconds", "2", "--least", "2", "--warming", "1")
ROWS = (
    Row("tiny", STEP, ("--setup", "tiny"), 2.7),
    Row("small", STEP, ("--setup", "small", *SHORT), 2.5),
    Row("base", STEP, ("--setup", "base", *SHORT), 4.5),
    Row("pixels", STEP, ("--setup", "pixels", *SHORT), 2.9),
    Row("tiny-bf16", STEP, ("--setup", "tiny", "--amp", "--rounds", "2"), 2.0),
    Row("small-bf16", STEP, ("--setup", "small", "--amp", *SHORT), 2.4),
    Row("tiny-avx2", STEP, ("--setup", "tiny", "--cap", "avx2", "--rounds", "2"), 2.0),
    Row("small-avx2", STEP, ("--setup", "small", "--cap", "avx2", *SHORT), 2.6),
    Row("encoders", ENCODERS, ("--rounds", "2", "--seconds", "1"), 5.5),
    Row("pictures", PIPELINE, ("--rounds", "2", "--seconds", "1"), 1.5),
    Row(
        "pictures-small",
        PIPELINE,
        ("--preset", "small", "--size", "256", "--rounds", "2", "--seconds", "1"),
        2.5,
    ),
)
NAMES = tuple(row.name for row in ROWS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", choices=(*NAMES, "none"), help="rows to measure; all by default"
    )
    parser.add_argument("--missing", action="store_true", help="skip rows that have results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--write", action="store_true", help="write the page and the picture")
    return parser.parse_args()


def key_of(known: Mapping[str, Any], installed: Mapping[str, str]) -> str:
    """Returns what a result holds for, in words: the processor and the versions."""
    libraries = ", ".join(f"{name} {installed[name]}" for name in ("jax", "torch") if name in
                          installed)  # fmt: skip
    return f"{processor_words(known)}; {libraries}"


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the stored results: processor and versions, then name of the row."""
    return json.loads(path.read_text()) if path.exists() else {}


def store(path: Path, key: str, name: str, result: Mapping[str, Any]) -> None:
    """Adds a row's result to the file, which is replaced as a whole."""
    results = read_results(path)
    results.setdefault(key, {})[name] = result
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


def measure_row(row: Row) -> dict[str, Any]:
    """Runs a row's script; returns its results with the date, or the reason of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        words = [sys.executable, str(HERE / row.script), *row.words, "--json", str(path)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return {"failure": f"exit code {done.returncode} of {' '.join(words[1:-2])}"}
        result = json.loads(path.read_text())
    return {**result, "date": datetime.now(UTC).strftime("%Y-%m-%d")}


def measure_rows(rows: Sequence[Row], path: Path, key: str) -> None:
    """Measures rows one after the other, and stores each result when it is there."""
    left = sum(row.minutes for row in rows)
    for number, row in enumerate(rows, 1):
        progress_line(f"[{number}/{len(rows)}] {row.name}: about {row.minutes:g} of {left:.0f} "
                      "minutes that are left")  # fmt: skip
        start = time.perf_counter()
        result = measure_row(row)
        left -= row.minutes
        outcome = f"failed: {result['failure']}" if "failure" in result else "measured"
        progress_line(f"  {row.name}: {outcome}, {(time.perf_counter() - start) / 60:.1f} minutes")
        if "failure" not in result:
            store(path, key, row.name, result)


def time_words(seconds: float) -> str:
    """Returns a time with three digits, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def ratio_cell(sides: Mapping[str, Any], peers: Sequence[str], figure: str) -> str:
    """Returns a peer's figure over ours, "failed", or nothing where the peer was not measured."""
    for peer in peers:
        if peer in sides:
            mine, other = sides.get(OURS, {}), sides[peer]
            if "failure" in other:
                return "failed"
            return f"{other[figure] / mine[figure]:.2f}" if mine.get(figure) else ""
    return ""


def share_cell(task: str, sides: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Returns which share of the cores' limit our training step reaches."""
    wall = sides.get(OURS, {}).get("wall")
    if task != "training step" or not wall or "cores" not in limits:
        return ""
    return f"{limits['cores'] / wall:.0%}"


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the table for one row's result."""
    lines = []
    cap = len(result["processor"]["instructions"]) == 1
    about = result["about"] + (f", {result['processor']['instructions'][0]} only" if cap else "")
    for task, sides in result["tasks"].items():
        mine = sides.get(OURS, {})
        ours = time_words(mine["wall"]) if "wall" in mine else "failed"
        cells = [
            ratio_cell(sides, peers, figure)
            for figure in ("wall", "cpu", "running")
            for peers in PEERS.values()
        ]
        cells += [f"{mine[name]:.0f}" if name in mine else "" for name in ("running", "compiling")]
        share = share_cell(task, sides, result.get("limits", {}))
        lines.append(f"| {task}: {about} | {ours} | {' | '.join(cells)} | {share} |")
    return lines


def failures_of(result: Mapping[str, Any]) -> list[str]:
    """Returns a line for each side of a row that failed, with the reason."""
    return [
        f"- {task}, {side}: {figures['failure']}"
        for task, sides in result["tasks"].items()
        for side, figures in sides.items()
        if "failure" in figures
    ]


def table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the Markdown table of all results, with a heading for each processor."""
    lines: list[str] = []
    for key, rows in sorted(results.items()):
        known = [name for name in NAMES if name in rows]
        if not known:
            continue
        when = days([rows[name] for name in known])
        lines += ["" if lines else None, f"**{key}**; measured {when}", "", *HEADER]
        for name in known:
            lines += lines_of(rows[name])
        failed = [line for name in known for line in failures_of(rows[name])]
        lines += ["", "These sides failed:", "", *failed] if failed else []
        missing = [name for name in NAMES if name not in rows]
        lines += ["", f"Not measured here: {', '.join(missing)}."] if missing else []
    return [line for line in lines if line is not None]


def main() -> None:
    args = arguments()
    key = key_of(processor(), versions())
    present = read_results(args.results).get(key, {})
    chosen = args.only or NAMES
    rows = [
        row for row in ROWS if row.name in chosen and not (args.missing and row.name in present)
    ]
    measure_rows(rows, args.results, key)
    results = read_results(args.results)
    lines = table(results)
    print("\n".join(lines))
    if args.write and lines:
        write_table(PAGE, BEGIN, END, lines)
        draw(results, NAMES, PICTURE)


if __name__ == "__main__":
    main()
