"""How long commands take until a person sees something, each in a fresh process.

Run: python benchmarks/start_times.py [--repeats 5] [--only help,generate,train]

`generate` and `train` run with empty caches (cold), and with those of their first run (warm). A
training run ends after its first step. Rows are medians: seconds until the marked event, seconds
until the end, CPU time (user and system) of the whole process, and the number of programs that XLA
compiled or read from its cache. The machine must be idle for seconds to mean anything; CPU time
depends less on other work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPT = "a small red house under a full moon"
FEW = ["--max_steps", "1", "--log_interval", "1", "--evaluation.prompts", "0"]
FEW += ["--evaluation.images", "0", "--sample_interval", "0"]
IMPORTS = "pinxit.cli.generate, pinxit.model_loading, pinxit.redraw"
"""The modules that `pinxit generate` imports."""


@dataclass(frozen=True)
class Start:
    """The times of one process."""

    event: float
    """Seconds until the event, or until the end if there is none."""
    whole: float
    """Seconds until the end."""
    cpu: float
    """CPU seconds of the process and those it started."""
    programs: int
    """Programs that XLA compiled or read from its cache."""


def main() -> None:
    """Measures the commands and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="python,help,imports,generate,train")
    arguments = parser.parse_args()
    kinds = arguments.only.split(",")
    print(f"{'command':<18} {'event s':>8} {'end s':>8} {'CPU s':>8} {'programs':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name, command, event in _commands(Path(folder), kinds):
            caches = ("cold", "warm") if name in ("generate", "train") else ("",)
            for cache in caches:
                starts = []
                for turn in range(arguments.repeats):
                    own = Path(folder) / f"{name}-{turn}"
                    starts.append(measure([*command, *_out(name, own, cache)], own, event))
                print(_row(f"{name} {cache}", starts), flush=True)


def _commands(folder: Path, kinds: Sequence[str]) -> list[tuple[str, list[str], str | None]]:
    """Returns the name of each command, its words, and the text that marks its event."""
    python, pinxit = [sys.executable, "-c"], [sys.executable, "-m", "pinxit"]
    commands: list[tuple[str, list[str], str | None]] = [
        ("python", [*python, "pass"], None),
        ("help", [*pinxit, "--help"], None),
        ("imports", [*python, f"import {IMPORTS}"], None),
        ("generate", [*pinxit, "generate", PROMPT], ".png"),
        ("train", [*pinxit, "train", *FEW], "step 1/1"),
    ]
    return [command for command in commands if command[0] in kinds]


def _out(name: str, folder: Path, cache: str) -> list[str]:
    """Returns the option that names a new folder for what a command writes."""
    if name == "generate":
        return ["--out", str(folder / f"pictures-{cache}")]
    # a finished run is not repeated, so that its name differs; the encoded rows are shared
    return ["--output_dir", str(folder), "--name", f"run-{cache}"] if name == "train" else []


def measure(command: Sequence[str], cache: Path, event: str | None) -> Start:
    """Runs a command with its own caches, until its end."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    environ["JAX_LOG_COMPILES"] = "1"
    before, started, seen, programs = os.times(), time.perf_counter(), None, 0
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        programs += "Finished XLA compilation" in line
        if event is not None and event in line and seen is None:
            seen = time.perf_counter() - started
    if process.wait():
        raise SystemExit(f"{command} failed:\n{''.join(lines)}")
    whole, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Start(whole if seen is None else seen, whole, cpu, programs)


def _row(name: str, starts: Sequence[Start]) -> str:
    """Returns a row of the table: medians."""
    event, whole, cpu, programs = (
        statistics.median(getattr(start, field) for start in starts)
        for field in ("event", "whole", "cpu", "programs")
    )
    return f"{name:<18} {event:8.2f} {whole:8.2f} {cpu:8.2f} {programs:9.0f}"


if __name__ == "__main__":
    main()
