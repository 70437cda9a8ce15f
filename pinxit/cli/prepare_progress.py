"""Displays the progress of a preparation: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.progress import StageProgress
from pinxit.progress import EVERY, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

JOBS = {
    "images": "preparing images",
    "latents": "encoding images with the VAE",
    "read": "looking for duplicates: reading rows",
    "urls": "looking for duplicates: comparing URLs",
    "phash": "looking for duplicates: comparing perceptual hashes",
}
"""The description of each stage, by its name."""
COUNTED = {"latents": "images"}
"""The things that a stage counts, by its name; rows if it is not listed."""


@contextlib.contextmanager
def watching(
    console: Console, counted: Mapping[str, str]
) -> Iterator[Callable[[StageProgress, UnitResult | None], None]]:
    """Yields the function that shows progress: a bar on a terminal, otherwise occasional lines.

    Stages that run at the same time have a bar or lines each, and threads may share the function.
    `counted` names the things that a stage counts, for example "rows".
    """
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    lock = threading.Lock()
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn())
        with Bar(*columns, console=console) as bar:
            tasks: dict[str, TaskID] = {}

            def show(progress: StageProgress, result: UnitResult | None) -> None:
                with lock:
                    if progress.stage not in tasks:
                        tasks[progress.stage] = bar.add_task(progress.stage, total=None)
                    bar.update(
                        tasks[progress.stage],
                        description=stage_in_words(progress, counted),
                        completed=progress.done,
                        total=progress.units,
                    )
                    _complain(console, result)

            yield show
        return
    last: dict[str, float] = {}

    def report(progress: StageProgress, result: UnitResult | None) -> None:
        with lock:
            _complain(console, result)
            finished = progress.done + progress.failed == progress.units
            if time.monotonic() - last.get(progress.stage, -math.inf) >= EVERY or finished:
                last[progress.stage] = time.monotonic()
                console.print(stage_in_words(progress, counted), highlight=False, soft_wrap=True)

    yield report


def _complain(console: Console, result: UnitResult | None) -> None:
    if result is not None and result.failed:
        unit = getattr(result.unit, "id", result.unit)
        line = f"warning: unit {unit}: {result.reason}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def stage_in_words(progress: StageProgress, counted: Mapping[str, str]) -> str:
    """Describes a stage's units done, its speed, the fraction of rows kept, and the time left."""
    what = counted.get(progress.stage, "rows")
    job = JOBS.get(progress.stage, progress.stage)
    facts = [f"{job}: unit {progress.done:,} of {progress.units:,}"]
    if progress.rows:
        share = progress.counts.get("ok", 0) / progress.rows
        facts += [f"{progress.rate:,.0f} {what}/s", f"{share:.1%} kept"]
        if progress.eta is not None and progress.done < progress.units:
            facts.append(f"{duration(progress.eta)} left")
    return ", ".join(facts)
