"""Measures sides that are compared, each alone in its process, with the processes in turns.

Two runtimes in one process disturb each other: threads that spin take the cores of the other, and
allocators share one heap. So each side is a command. A command measures its tasks with `measure`
and ends with `answer`. `take_turns` runs the commands one after the other, several rounds of it,
and `medians` makes one set of figures of a side's rounds: seconds of wall time, seconds of CPU time
(user and system, all threads) and two peaks of the process's resident memory in MiB: the peak of
its whole life, and the peak during the measured calls. Compiled programs of all sides are cached,
so `peaks_while_compiling` measures ours once before the turns, with a new cache. A side that fails
is named with its reason, and the others go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from processor_class import processor_words

FIGURES = ("wall", "cpu", "peak", "running")
"""The figures of a task: seconds, seconds, MiB and MiB."""
WARMING = 2
"""Calls before those that count: the first one compiles."""
Words = Sequence[str]


def measure(
    run: Callable[[], Any], *, seconds: float, least: int = 3, warming: int = WARMING
) -> dict[str, Any]:
    """Calls `run` for `seconds`, at least `least` times, and returns the medians of its figures."""
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(warming):
        run()
    peak = peak_memory()
    forget_peak()
    while len(walls) < least or sum(walls) < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    running = peak_memory()
    figures = {"wall": median(walls), "cpu": median(cpus), "running": running}
    return {**figures, "peak": max(peak, running), "calls": len(walls)}


def peak_memory() -> float:
    """Returns the peak of this process's resident memory in MiB.

    The kernel's ``ru_maxrss`` is no use here: it begins with the peak of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024


def forget_peak() -> None:
    """Sets the peak of this process's memory to what it holds now, where the kernel allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def answer(tasks: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
    """Prints the figures of a side's tasks, as the last line of its process."""
    print(json.dumps({"tasks": tasks, **more}), flush=True)


def run_side(words: Words, environment: Mapping[str, str], limit: float) -> dict[str, Any]:
    """Runs a side once and returns its answer, or ``{"failure": reason}``."""
    try:
        done = subprocess.run(
            list(words), capture_output=True, text=True, env=dict(environment), timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"it took more than {limit:g} seconds"}
    if done.returncode < 0:
        return {"failure": f"it was ended by signal {-done.returncode}"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failure": lines[-1].strip() if lines else f"exit code {done.returncode}"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failure": "its last line is not JSON"}


def prepare_sides(
    script: str, side: str, folder: Path, environment: Mapping[str, str], *, failure: str
) -> None:
    """Runs the side of a script that writes what the others read, in a process of its own.

    Raises `SystemExit` with the sentence `failure` and the reason if it fails.
    """
    prepared = run_side(side_words(script, side, folder), environment, 600)
    if "failure" in prepared:
        raise SystemExit(f"{failure}: {prepared['failure']}")


def take_turns(
    commands: Mapping[str, Words],
    *,
    rounds: int,
    environment: Mapping[str, str],
    limit: float = 900,
    say: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Runs every side's command once in each round; returns the answers of each side.

    The first failure of a side ends its turns: its answers are then that failure alone.
    """
    say = say or progress_line
    answers: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
    for turn in range(rounds):
        for side, words in commands.items():
            if any("failure" in each for each in answers[side]):
                continue
            start = time.perf_counter()
            result = run_side(words, environment, limit)
            outcome = f"failed: {result['failure']}" if "failure" in result else "measured"
            say(f"  {side}, round {turn + 1} of {rounds}: {outcome}, "
                f"{time.perf_counter() - start:.0f} s")  # fmt: skip
            answers[side] = [result] if "failure" in result else [*answers[side], result]
    return answers


def peaks_while_compiling(
    commands: Mapping[str, Words],
    side: str,
    environment: Mapping[str, str],
    *,
    limit: float = 900,
    say: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Runs a side once before the turns, if it is one of the commands. Returns the peak memory of
    its tasks in MiB by side and task, for `by_task`.

    With a new cache of JAX's programs (`new_cache`), it compiles them, and the turns do not.
    """
    if side not in commands:
        return {}
    result = run_side(commands[side], environment, limit)
    peaks = {task: figures["peak"] for task, figures in result.get("tasks", {}).items()}
    shown = ", ".join(f"{task} {peak:.0f} MiB" for task, peak in peaks.items())
    (say or progress_line)(f"  compiling: {shown or 'failed'}")
    return {side: peaks}


def new_cache(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Returns the environment with a new cache of JAX's programs, in a temporary folder."""
    return {**environment, "JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}


def progress_line(text: str) -> None:
    """Prints a line about the progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def medians(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the median of each figure of each task over a side's rounds, or its failure."""
    if failure := next((each["failure"] for each in answers if "failure" in each), None):
        return {"failure": failure}
    tasks = {
        task: {name: median(each["tasks"][task][name] for each in answers) for name in FIGURES}
        for task in answers[0]["tasks"]
    }
    return {"tasks": tasks, "rounds": len(answers)}


def by_task(
    sides: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[str] = (),
    *,
    compiling: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Regroups medians by task: task to side to figures. A side that failed has its failure.

    `tasks` are names that appear even if all sides failed. `compiling` are a side's peaks while it
    compiles, by task.
    """
    more = compiling or {}
    names: dict[str, None] = dict.fromkeys(tasks)
    for result in sides.values():
        names |= dict.fromkeys(result.get("tasks", ()))
    return {
        task: {
            side: {
                **(result["tasks"][task] if "tasks" in result else result),
                **({"compiling": more[side][task]} if task in more.get(side, {}) else {}),
            }
            for side, result in sides.items()
            if "tasks" not in result or task in result["tasks"]
        }
        for task in names
    }


def begin_report(results: Mapping[str, Any], file: Path | None) -> None:
    """Writes the results to a JSON file if one is named, and prints what was measured on what."""
    if file:
        file.write_text(json.dumps(results))
    print(f"{results['about']}, {processor_words(results['processor'])}, {results['versions']}")


def print_table(tasks: Mapping[str, Mapping[str, Mapping[str, Any]]], ours: str) -> None:
    """Prints a table of each task's sides, with each side's figures over those of `ours`."""
    print("| task | side | wall s | CPU s | peak MiB | running MiB | ratios of these four |")
    print("|---|---|---:|---:|---:|---:|---|")
    for task, sides in tasks.items():
        for side, figures in sides.items():
            if "failure" in figures:
                print(f"| {task} | {side} | failed: {figures['failure']} | | | | |")
                continue
            cells = f"{figures['wall']:.4f} | {figures['cpu']:.4f} | "
            cells += f"{figures['peak']:.0f} | {figures['running']:.0f}"
            mine = sides.get(ours, {})
            ratios = ", ".join(
                f"{figures[name] / mine[name]:.2f}" if mine.get(name) else "" for name in FIGURES
            )
            print(f"| {task} | {side} | {cells} | {ratios} |")


def add_turn_options(parser: Any, *, seconds: float) -> None:
    """Adds the options that every comparison has."""
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="measured for each task in each process"
    )
    parser.add_argument("--cap", choices=("avx2",), help="cap both runtimes' instruction sets")
    parser.add_argument("--json", type=Path, help="also write the results into this file")
    parser.add_argument("--side", help="measure this side in this process (for internal use)")
    parser.add_argument("--folder", type=Path, help="files of the sides (for internal use)")


def side_words(script: str, side: str, folder: Path | str) -> list[str]:
    """Returns the command that measures one side: this command again, with two more options."""
    return [sys.executable, script, *sys.argv[1:], "--side", side, "--folder", str(folder)]
