"""`pinxit evaluate`: measures a model on its run's held-out rows, or on rows of another dataset."""

from __future__ import annotations

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
from pinxit.evaluate.evaluators import EVALUATORS, evaluators, measure_all
from pinxit.evaluate.tables import tables
from pinxit.files import write_json
from pinxit.sampling import ALIASES

NAME = "evaluation.json"
"""The name of the file with the results."""


@dataclass(frozen=True)
class EvaluateOptions(SubjectOptions):
    """Options of `pinxit evaluate`."""

    out: str | None = None
    """JSON file for the results; none means evaluation.json in the evaluated run or directory. For
    a model on the Hub or in one file, nothing is written without it. With --sweep it is a folder;
    none means the folder sweep of the run, or of the current directory."""
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
        "the validation loss by time, the effect of captions, and for scenes the accuracy on "
        f"held-out prompts by attribute. Evaluators: {', '.join(EVALUATORS)}.",
        positional=None,
        habits=EVALUATE_HABITS,
    )
    chosen = evaluators(options.evaluators)
    if options.sweep is not None:
        return run_sweep(options, options.sweep, options.out, chosen, argv)
    subject = subject_of(options)
    print(f"measured on: {subject.rows}")
    context = subject.context()
    lines: list[str] = []
    values = measure_all(chosen.values(), context, say=lines.append)
    context.observations.finished()
    _print_tables(values)
    print("\n".join(lines))
    out = _evaluation_path(options, subject)
    if out is not None:
        record = _record(subject, values) | {"command": ["pinxit", "evaluate", *argv]}
        write_json(out, record, sort_keys=False, indent=2, allow_nan=True)
        print(out)
    return 0


def _record(subject: Subject, values: dict[str, float]) -> dict[str, Any]:
    """Returns the content of evaluation.json: the model, the rows and the values."""
    model, rows = subject.model, subject.rows
    measured_on = {"dataset": rows.dataset, "path": rows.path, "origin": rows.origin}
    return {
        "model": model.name,
        "model_hash": model.model_hash,
        "rows": {**measured_on, "count": len(rows.examples)},
        **(model.stored.details if model.stored else {}),
        "values": values,
    }


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
        for name, *cells in group.rows:
            shown = (f"{cell:.4f}" if isinstance(cell, float) else cell for cell in cells)
            table.add_row(str(name), *shown, style="bold" if name in ("mean", "loss") else None)
        Console().print(table)
