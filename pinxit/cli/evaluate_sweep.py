"""`pinxit evaluate --sweep`: measures a model with every combination of some settings."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pinxit.cli.evaluation_subject import Subject, SubjectOptions, run_of, subject_of
from pinxit.cli.sampling_options import sampling_options
from pinxit.config import UsageError, plain, written
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator
from pinxit.evaluate.sweep.cells import AVERAGE, Sweep
from pinxit.evaluate.sweep.picture import draw_sweep
from pinxit.evaluate.sweep.running import SweepRunner
from pinxit.evaluate.sweep.storing import SweepFile
from pinxit.evaluate.sweep.table import sweep_table
from pinxit.files import whole
from pinxit.output_paths import check_writable

OPTION = "--sweep"
FOLDER = "sweep"
"""The folder of a sweep, in the folder of the model's run."""


def gathered(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the values of all ``--sweep`` options behind one of them."""
    others: list[str] = []
    axes: list[str] = []
    inside = False
    for word in argv:
        if word == OPTION or word.startswith(f"{OPTION}="):
            inside = True
            axes += [word.partition("=")[2]] if word != OPTION else []
        elif inside and not word.startswith("--"):
            axes.append(word)
        else:
            inside = False
            others.append(word)
    return [*others, OPTION, *axes] if len(others) < len(argv) else list(argv)


def run_sweep(
    options: SubjectOptions,
    axes: Sequence[str],
    out: str | None,
    chosen: dict[str, Evaluator],
    argv: Sequence[str],
) -> int:
    """Measures the cells that the axes describe, and writes ``sweep.json``, ``sweep.md`` and
    ``sweep.png``. Raises `UsageError` for wrong axes before the model is loaded."""
    sweep = Sweep.parse(axes)
    sweep.check_free({**sampling_options(options), AVERAGE: options.ema})
    folder = _folder(options.checkpoint, out)
    check_writable("out", str(folder), folder)
    command = ["pinxit", "evaluate", *argv]
    file = SweepFile.open(folder / "sweep.json", sweep, command)

    def context_of(ema: str | None) -> EvaluationContext:
        subject = subject_of(replace(options, ema=ema or options.ema))
        if not file.protocol:
            print(f"measured on: {subject.rows}")
        context = subject.context()
        file.protocol = _protocol(subject, context, chosen)
        return context

    def say(line: str) -> None:
        print(f"pinxit: {line}", file=sys.stderr)

    try:
        SweepRunner(file, chosen, context_of, once=bool(options.evaluators), say=say).run()
    except KeyboardInterrupt:
        again = shlex.join(command)
        done = f"{len(file.cells):,} of {len(sweep):,} cells"
        say(f"in {folder}: {done}; the same command measures the others: {again}")
        raise
    with whole(folder / "sweep.md") as temporary:
        temporary.write_text(sweep_table(file), encoding="utf-8")
    title = ", ".join(file.protocol["in_words"].values())
    draw_sweep(sweep.axes, file.in_order(), folder / "sweep.png", title=title)
    for name in ("sweep.json", "sweep.md", "sweep.png"):
        print(folder / name)
    return 0


def _folder(checkpoint: str | None, out: str | None) -> Path:
    """Returns the folder of a sweep: `out`, or a folder of the model's run, or one here."""
    if out is not None:
        path = Path(out)
        if path.is_file() or path.suffix.lower() in (".json", ".md", ".png"):
            raise UsageError("out", out, problem="a file", valid="with --sweep, a folder")
        return path
    run = run_of(checkpoint)
    return Path(FOLDER) if run is None else run.root / FOLDER


def _protocol(
    subject: Subject, context: EvaluationContext, chosen: dict[str, Evaluator]
) -> dict[str, Any]:
    """Returns the settings and the data that all cells share, with a summary in words."""
    model, count = subject.model, len(context.real.prompts)
    fixed = sampling_options(subject.options)
    words = {
        "model": f"{model.name}, {model.image_size} pixels",
        "prompts": f"{count:,} held-out prompts of {subject.rows.dataset}, seed i for picture i",
    }
    if fixed:
        words["settings"] = ", ".join(f"{name} {written(each)}" for name, each in fixed.items())
    return {
        "in_words": words,
        "model": model.name,
        "image_size": model.image_size,
        **subject.data(context, chosen),
        "sampling": plain(fixed),
    }
