"""Displays the progress of a preparation: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.progress import StageProgress
from pinxit.progress import EVERY, duration

if TYPE_CHECKING:
    from rich.console import Console

JOBS = {
    "images": "preparing images",
    "latents": "encoding images with the VAE",
    "read": "looking for duplicates: reading rows",
    "urls": "looking for duplicates: comparing URLs",
    "phash": "looking for duplicates: comparing perceptual hashes",
}
"""The description of each stage, by its name."""


@contextlib.contextmanager
def watching(
    console: Console, what: str
) -> Iterator[Callable[[StageProgress, UnitResult | None], None]]:
    """Yields the function that shows progress: a bar on a terminal, otherwise occasional lines.

    `what` names the things that are counted, for example "rows".
    """
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(what, total=None)

            def show(progress: StageProgress, result: UnitResult | None) -> None:
                bar.update(
                    task,
                    description=stage_in_words(progress, what),
                    completed=progress.done,
                    total=progress.units,
                )
                _complain(console, result)

            yield show
        return
    last = -math.inf

    def report(progress: StageProgress, result: UnitResult | None) -> None:
        nonlocal last
        _complain(console, result)
        finished = progress.done + progress.failed == progress.units
        if time.monotonic() - last >= EVERY or finished:
            last = time.monotonic()
            console.print(stage_in_words(progress, what), highlight=False, soft_wrap=True)

    yield report


def _complain(console: Console, result: UnitResult | None) -> None:
    if result is not None and result.failed:
        unit = getattr(result.unit, "id", result.unit)
        line = f"warning: unit {unit}: {result.reason}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def stage_in_words(progress: StageProgress, what: str) -> str:
    """Describes a stage's units done, its speed, the fraction of rows kept, and the time left."""
    job = JOBS.get(progress.stage, progress.stage)
    facts = [f"{job}: unit {progress.done:,} of {progress.units:,}"]
    if progress.rows:
        share = progress.counts.get("ok", 0) / progress.rows
        facts += [f"{progress.rate:,.0f} {what}/s", f"{share:.1%} kept"]
        if progress.eta is not None and progress.done < progress.units:
            facts.append(f"{duration(progress.eta)} left")
    return ", ".join(facts)
