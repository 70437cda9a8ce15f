"""The end of a run: chooses the best average, records the choice, and writes results and report.

The last checkpoint is on the disk before. A signal ends this phase; the same command repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from pinxit.devices.processes import Stopped, alone
from pinxit.train.current_run import CurrentRun
from pinxit.train.metric_rows import read_rows
from pinxit.train.report.finish import finish
from pinxit.train.report.observer import Observer, best_of, losses_in
from pinxit.train.state import TrainState

T = TypeVar("T")
FLUSH_SECONDS = 5.0
"""Seconds to wait for rows of metrics before the curves are drawn."""


def final_phase(run: CurrentRun, observer: Observer, held: TrainState) -> dict[str, Any] | None:
    """Chooses, evaluates and reports. `held` is the last state, as process 0 can use it.

    Returns the results, or None if a signal arrived.
    """
    seconds, step = run.train_seconds(), int(held.step)

    def unless_stopped(act: Callable[[], T]) -> T | None:
        try:
            return act()
        except Stopped:
            return None

    def watch(name: str, act: Callable[[], T]) -> T | None:
        """Runs a watcher. Its failure counts, but a signal ends this phase."""
        result = run.watchers.attend(name, act)
        if run.interruption.heard():
            raise Stopped
        return result

    def evaluate(chosen: str | None = None) -> dict[str, float]:
        values = watch("the final evaluation", lambda: observer.final(held, chosen))
        run.evaluated(step, values)
        return values or {}

    def choose() -> dict[str, float]:
        measured = evaluate()
        run.checkpoints.choose(step, best_of(losses_in(measured), held))
        return measured

    def report(measured: dict[str, float]) -> dict[str, Any]:
        chosen = best_of(losses_in(measured), held)
        values = measured | evaluate(chosen)
        watch("the protocol", lambda: observer.conclude(held, chosen))
        run.writers.flush(FLUSH_SECONDS)
        return finish(
            observer,
            held,
            watch,
            chosen=chosen,
            values=values,
            rows=[*read_rows(run.folder.metrics), *run.writers.unwritten()],
            seconds=seconds,
            data=run.watchers.guard("reading the figures of the data", run.feed.results, {}),
            warnings=lambda: [
                *(asdict(one) for one in run.watch.findings),
                *run.watchers.results(),
            ],
            changes=run.changes,
            send=lambda path: run.writers.picture(step, path),
            write_page=lambda results: run.page.write(
                unwritten=run.writers.unwritten(), finishing=results
            ),
        )

    heard = run.interruption.heard
    measured = alone(lambda: unless_stopped(choose), signal=heard)
    if measured is None:
        return None
    return alone(lambda: unless_stopped(lambda: report(measured)), signal=heard)
