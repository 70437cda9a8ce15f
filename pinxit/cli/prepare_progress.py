"""What the terminal shows of a preparation: a bar, or a line now and then where there is none."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def watching(
    console: Console, what: str
) -> Iterator[Callable[[Progress, UnitResult | None], None]]:
    """A bar where there is a terminal, otherwise a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, TextColumn("units  {task.fields[said]}"), console=console) as bar:
            task = bar.add_task(what, total=None, said="")

            def show(progress: Progress, result: UnitResult | None) -> None:
                bar.update(
                    task,
                    description=progress.stage,
                    completed=progress.done,
                    total=progress.units,
                    said=rates(progress, what),
                )
                _complain(console, result)

            yield show
        return
    last = -math.inf

    def tell(progress: Progress, result: UnitResult | None) -> None:
        nonlocal last
        _complain(console, result)
        finished = progress.done + progress.failed == progress.units
        if time.monotonic() - last >= 10 or finished:
            last = time.monotonic()
            line = f"{progress.stage}: {progress.done}/{progress.units} units"
            console.print(f"{line}  {rates(progress, what)}", highlight=False, soft_wrap=True)

    yield tell


def _complain(console: Console, result: UnitResult | None) -> None:
    if result is not None and result.failed:
        unit = getattr(result.unit, "id", result.unit)
        console.print(f"warning: unit {unit}: {result.reason}", highlight=False, markup=False)


def rates(progress: Progress, what: str) -> str:
    """Speed, share kept and time left, in words."""
    if not progress.rows:
        return ""
    kept = progress.counts.get("ok", 0) / progress.rows
    eta = "" if progress.eta is None else f"  {_duration(progress.eta)} left"
    return f"{progress.rate:,.0f} {what}/s  {kept:.1%} kept{eta}"


def _duration(seconds: float) -> str:
    """Days and hours, hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
