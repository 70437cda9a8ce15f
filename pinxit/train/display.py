"""The terminal output of a run: a live panel, or one line per row if there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from pinxit.progress import Lines, duration, showing
from pinxit.train.attended_work import end_if_asked

T = TypeVar("T")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _memory(row: dict[str, Any]) -> str:
    """Returns the peak memory of the fullest device and its limit, or the host's use on CPUs."""
    if row.get("device_memory_gb") is None:
        return _number(row.get("memory_gb"), ".2f") + " GB"
    limit = row.get("device_memory_limit_gb")
    return f"{row['device_memory_gb']:.1f}" + (f" of {limit:.1f} GB" if limit else " GB")


class Display:
    """Displays a run while it trains."""

    def __init__(self, name: str, *, max_steps: int, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.name = name
        self.max_steps = max_steps
        self.step = 0
        self.row: dict[str, Any] = {}
        self.last_event = "starting: the first step takes longer, because it compiles"
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
        )
        self._task = self._bar.add_task("step", total=max_steps)
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Shows the panel, if the console is a terminal."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(console=self.console, get_renderable=self._panel, refresh_per_second=4) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def say(self, text: str) -> None:
        """Prints a message, such as an event or a warning."""
        self.last_event = text
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_step(self, step: int) -> None:
        """Updates the progress bar."""
        self.step = step
        self._bar.update(self._task, completed=step)

    def on_row(self, step: int, row: dict[str, Any]) -> None:
        """Displays a new row of metrics."""
        self.step, self.row = step, row
        if not self.console.is_terminal:
            line = "  ".join(f"{name} {value}" for name, value in self._facts().items())
            self.console.print(
                f"step {step}/{self.max_steps}  {line}", highlight=False, soft_wrap=True
            )

    def track(
        self, items: Iterable[T], text: str, total: int, *, unit: str = "batch"
    ) -> Iterator[T]:
        """Yields the items and shows the progress of `text`: as a bar, or as lines if there is no
        terminal or the panel is shown. Ends early if the run is to stop."""
        if self._live is None:
            with showing(self.console, text, unit=unit) as show:
                show(0, total)
                for done, item in enumerate(items, start=1):
                    yield item
                    show(done, total)
                    end_if_asked()
            return
        lines = Lines(self.say, text, unit=unit)
        lines.show(0, total)
        for done, item in enumerate(items, start=1):
            yield item
            lines.show(done, total)
            end_if_asked()
        lines.end()

    @contextmanager
    def showing(self, text: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Shows the progress of an activity in lines, if it takes longer than some seconds.

        Yields a function that takes the number of units done and their total.
        """
        lines = Lines(self.say, text, unit=unit, at_once=False)
        yield lines.show
        lines.end()

    def _facts(self) -> dict[str, str]:
        row = self.row
        seconds = (self.max_steps - self.step) * (row.get("seconds_per_step") or 0.0)
        facts = {
            "loss": _number(row.get("loss"), ".4f"),
            "images/s": _number(row.get("images_per_second"), ".1f"),
            "time left": duration(seconds),
            "data wait": _number(row.get("data_wait_share"), ".1%"),
            "memory": _memory(row),
        }
        if row.get("mfu") is not None:
            facts["MFU"] = f"{row['mfu']:.0%}"
        if "alive_share" in row:
            facts["alive"] = f"{row['alive_share']:.0%} of {row['rows_tried']:,.0f} tried"
            facts["filtered"] = _number(row.get("filtered_share"), ".0%")
        if row.get("rows_replaced"):
            facts["replaced"] = f"{row['rows_replaced']:,.0f} rows of damaged shards"
        if row.get("skipped"):
            facts["skipped"] = str(row["skipped"])
        return facts

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 3))
        facts = self._facts() if self.row else {}
        if facts:
            table.add_row(*(f"[dim]{name}[/] {value}" for name, value in facts.items()))
        event = Table.grid()
        event.add_row(f"[dim]last[/] {self.last_event}")
        return Panel(Group(self._bar, table, event), title=f"pinxit train: {self.name}")
