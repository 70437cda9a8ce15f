"""`pinxit evaluate`: measures a model on its run's held-out rows, or on rows of another dataset."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pinxit.cli.arguments import parse
from pinxit.cli.evaluate_sweep import gathered, run_sweep
from pinxit.cli.evaluation_subject import Subject, SubjectOptions, subject_of
from pinxit.cli.habits import EVALUATE_HABITS
from pinxit.cli.stopping import stoppable
from pinxit.evaluate.evaluators import EVALUATORS, evaluators, measure_all
from pinxit.evaluate.protocol import protocol
from pinxit.evaluate.record import record_of, write_record
from pinxit.evaluate.tables import tables
from pinxit.output_paths import check_local, check_writable
from pinxit.sampling import ALIASES

NAME = "evaluation.json"
"""The name of the file with the results."""


@dataclass(frozen=True)
class EvaluateOptions(SubjectOptions):
    """Options of `pinxit evaluate`."""

    out: str | None = None
    """JSON file for the results; none means evaluation.json in the evaluated run or directory. The
    same as a page is written beside it (.md). For a model on the Hub or in one file, nothing is
    written without it. With --sweep it is a folder; none means the folder sweep of the run, or of
    the current directory."""
    sweep: tuple[str, ...] | None = None
    """Settings and their values, such as guidance_scale=1,2,4 steps=8,16 ema=raw,0.05. Every
    combination is measured. Any sampling setting and ema may be varied."""


def evaluate_command(argv: Sequence[str]) -> int:
    """Prints what the evaluators measure on held-out rows, and writes it to evaluation.json."""
    options = parse(
        EvaluateOptions,
        gathered(argv),
        aliases=ALIASES,
        prog="pinxit evaluate",
        description="Measures a model on the rows that its run held out, or on another dataset: "
        "the validation loss by time, the effect of captions, and, of pictures drawn for held-out "
        "prompts, their accuracy (scenes) and their distances from real ones. An interrupted "
        f"command goes on where it was. Evaluators: {', '.join(EVALUATORS)}.",
        positional=None,
        habits=EVALUATE_HABITS,
    )
    check_local("out", options.out)
    if options.sweep is not None:
        chosen = evaluators(options.evaluators)
        return run_sweep(options, options.sweep, options.out, chosen, argv)
    subject = subject_of(options)
    out = _evaluation_path(options, subject)
    if out is not None:
        check_writable("out", str(out), out.parent)
    print(f"measured on: {subject.rows}", flush=True)
    again = ["pinxit", "evaluate", *argv]
    with stoppable(_goes_on(again, out)):
        values, lines, about = _measured(subject, _partial(out))
    _print_tables(values)
    print("\n".join(lines))
    if line := str(subject.selection):
        print(line)
    if out is not None:
        rows = {"dataset": subject.rows.dataset, "path": subject.rows.path}
        rows |= {"origin": subject.rows.origin, "count": len(subject.rows.examples)}
        record = record_of(subject.model, values, about, rows=rows, command=again)
        print(out, write_record(out, record), sep="\n")
    return 0


def _measured(
    subject: Subject, folder: Path | None
) -> tuple[dict[str, float], list[str], dict[str, Any]]:
    """Returns the values, a line for each evaluator, and the protocol."""
    started, lines = time.perf_counter(), []
    context = subject.context(observations=subject.observations(folder))
    names = subject.selection.names
    values = measure_all(evaluators(names).values() if names else (), context, say=lines.append)
    seconds = time.perf_counter() - started
    about = protocol(context, names, average=subject.average, seconds=seconds)
    context.observations.finished()
    return values, lines, about


def _partial(out: Path | None) -> Path | None:
    """Returns the folder beside the results that has the features of an unfinished evaluation."""
    return None if out is None else out.with_name(f"{out.name}.partial")


def _goes_on(command: Sequence[str], out: Path | None) -> str:
    """Returns how an interrupted evaluation goes on."""
    again = shlex.join(command)
    if out is None:
        return f"nothing is stored without --out FILE; `{again}` starts from the beginning"
    return f"`{again}` goes on from the pictures that are measured ({_partial(out)})"


def _evaluation_path(options: EvaluateOptions, subject: Subject) -> Path | None:
    """Returns the path of the results, or None if they are not written.

    It is never inside a checkpoint, because a checkpoint's manifest lists every file.
    """
    if options.out is not None:
        return Path(options.out)
    if options.checkpoint is None:
        return None
    directory = Path(options.checkpoint)
    if not directory.is_dir():
        return None
    run = subject.run
    if run is not None and directory != run.model:
        return run.root / NAME
    if (directory / "manifest.json").is_file():
        directory = directory.parent
    return directory / NAME


def _print_tables(values: dict[str, float]) -> None:
    for group in tables(values):
        table = Table(*group.head, title=group.title)
        for row in group.texts:
            table.add_row(*row, style="bold" if row[0] in ("mean", "loss") else None)
        Console().print(table)
