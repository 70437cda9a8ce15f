"""Decides which batches all processes take: at each step, every process has one of the same size.

Processes stream at different speeds. A process that waited inside a step for another one's data
would hang there, since collectives have short time limits. So no process begins a step before all
of them have their part of its batch. Each process publishes a `BatchReport` of the batches that it
has made. Process 0 compares the reports, and publishes a `BatchOrder`: the image size of each step
that may begin, and the end of the data, if one of the processes has no more or has received a
signal.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

AHEAD = 4
"""Number of batches that a process makes ahead of the training step."""
MOST_AHEAD = 64
"""The same if the processes have images of different sizes. Beyond that, the data end."""
MESSAGES = 8
"""Number of a process's latest messages that its report contains."""


@dataclass(frozen=True)
class BatchReport:
    """The batches of one process since the start of the command, as published."""

    batches: dict[str, int] = field(default_factory=dict)
    """Number of batches that its rows are enough for, by image size. Only grows."""
    steps: int = 0
    """Number of batches that it has taken for a step."""
    full_at: int = 0
    """The order's `ahead` with which it makes no more batches, or 0 if it makes more."""
    ended: str | None = None
    """The reason why it has no more data, an empty string after a signal, or None."""
    figures: dict[str, int] = field(default_factory=dict)
    """Numbers of rows, which are added over the processes."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """The errors of units that it could not read."""
    messages: tuple[str, ...] = ()
    """Its latest messages to the user."""
    message_count: int = 0
    """Number of its messages so far."""

    def packed(self) -> str:
        """Returns the report as JSON."""
        return json.dumps(dataclasses.asdict(self))


def unpack_report(text: str) -> BatchReport:
    """Inverts `BatchReport.packed`."""
    values = json.loads(text)
    values["messages"] = tuple(values["messages"])
    return BatchReport(**values)


@dataclass(frozen=True)
class BatchOrder:
    """The decisions of process 0, as published."""

    first: int = 0
    """Number of the first batch of `sizes`. All processes have taken the earlier ones."""
    sizes: tuple[str, ...] = ()
    """The image size of each batch that all processes have."""
    ahead: int = AHEAD
    """Number of batches that a process may have, of all sizes together, before it waits."""
    ended: str | None = None
    """The reason why there are no batches after these, an empty string after a signal, or None."""

    @property
    def stop(self) -> int:
        """Returns the number of batches that all processes take, until more are decided."""
        return self.first + len(self.sizes)

    def size(self, number: int) -> str | None:
        """Returns the image size of a batch, or None if it is not decided."""
        return self.sizes[number - self.first] if number < self.stop else None

    def packed(self) -> str:
        """Returns the order as JSON."""
        return json.dumps(dataclasses.asdict(self))


def unpack_order(text: str) -> BatchOrder:
    """Inverts `BatchOrder.packed`."""
    values = json.loads(text)
    values["sizes"] = tuple(values["sizes"])
    return BatchOrder(**values)


class Leader:
    """Makes the orders on process 0, from the reports."""

    def __init__(
        self, processes: int, batches: int, say: Callable[[str], None] = lambda line: None
    ) -> None:
        """Takes the number of batches to decide in all. `say` receives the messages of the other
        processes."""
        self.processes = processes
        self.batches = batches
        self.order = BatchOrder()
        self.reports: dict[int, BatchReport] = {}
        """The last report of each process, by its number."""
        self._say = say
        self._used: Counter[str] = Counter()
        self._said: Counter[int] = Counter()

    @property
    def decided(self) -> bool:
        """Whether no further order will follow."""
        return self.order.ended is not None or self.order.stop >= self.batches

    def note(self, reports: Mapping[int, BatchReport]) -> BatchOrder:
        """Returns the order after these reports."""
        self.reports = dict(reports)
        for process, report in sorted(reports.items()):
            self._pass_on(process, report)
        reasons = {p: one.ended for p, one in sorted(reports.items()) if one.ended is not None}
        if len(reports) == self.processes:
            self._decide([reports[process] for process in range(self.processes)])
        if reasons and self.order.ended is None:
            lines = [
                f"process {process}: {reason}" for process, reason in reasons.items() if reason
            ]
            self.order = dataclasses.replace(self.order, ended=next(iter(lines), ""))
        return self.order

    def _decide(self, reports: Sequence[BatchReport]) -> None:
        """Adds the batches that all processes have, and removes those that all have taken."""
        order, sizes = self.order, list(self.order.sizes)
        while not self.decided and order.first + len(sizes) < self.batches:
            common = self._common(reports)
            if not common:
                break
            # with equal numbers, the order of the names decides
            size = max(sorted(common), key=lambda name: common[name])
            self._used[size] += 1
            sizes.append(size)
        first = min(report.steps for report in reports)
        sizes = sizes[first - order.first :]
        self.order = order = dataclasses.replace(order, first=first, sizes=tuple(sizes))
        stuck = all(one.full_at == order.ahead and one.steps == order.stop for one in reports)
        if stuck and order.stop < self.batches:
            self._allow_more(reports)

    def _common(self, reports: Sequence[BatchReport]) -> dict[str, int]:
        """Returns the number of undecided batches that all processes have, by image size."""
        counts = {
            size: min(report.batches.get(size, 0) for report in reports) - self._used[size]
            for size in reports[0].batches
        }
        return {size: count for size, count in counts.items() if count > 0}

    def _allow_more(self, reports: Sequence[BatchReport]) -> None:
        """Lets the processes make more batches, since they have none of the same size."""
        if self.order.ahead < MOST_AHEAD:
            self.order = dataclasses.replace(self.order, ahead=2 * self.order.ahead)
            return
        sizes = "; ".join(
            f"process {process}: {', '.join(sorted(report.batches)) or 'none'}"
            for process, report in enumerate(reports)
        )
        ended = (
            f"the processes have no batch of the same image size among {MOST_AHEAD} each ({sizes})"
        )
        self.order = dataclasses.replace(self.order, ended=ended)

    def _pass_on(self, process: int, report: BatchReport) -> None:
        """Displays the new messages of another process."""
        new = min(report.message_count - self._said[process], len(report.messages))
        self._said[process] = report.message_count
        for message in report.messages[len(report.messages) - new :] if process else ():
            self._say(f"process {process}: {message}")
