"""Checks of a run's rows of metrics: readable, in order, finite, complete, and what they show."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pinxit.checkpoint_files import step_of_checkpoint
from pinxit.doctor.report_line import Line, ok, problem, warning
from pinxit.doctor.run_facts import RECENT, RunFacts, age, listing
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.metric_rows import wrong_row
from pinxit.train.settings import TrainConfig
from pinxit.train.watch.run_health import Finding, RunWatch


def check_metrics(facts: RunFacts) -> Iterator[Line]:
    """Checks that the rows are readable, in order, finite, and reach the newest checkpoint."""
    path = facts.folder.metrics
    if not path.exists():
        yield _summary(facts)
        return
    facts.rows, wrong = read_lines(path)
    steps = [row["step"] for row in facts.rows]
    back = [i for i, (a, b) in enumerate(pairwise(steps)) if b < a]
    if back:
        wrong.append(f"step {steps[back[0] + 1]} comes after step {steps[back[0]]}")
    bad = {
        f"{name} at step {row['step']}": None
        for row in facts.rows
        for name, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    if bad:
        wrong.append(f"not finite: {listing(list(bad))}")
    if wrong:
        advice = "check that only one process writes into this run. Resuming drops the lines that "
        advice += "cannot be read, and rewrites the rows that it repeats"
        yield problem("metrics", f"{path}: {'; '.join(wrong[:4])}", advice)
        return
    yield _summary(facts)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Reads the rows that have a step, and describes every other line.

    The last line may be incomplete, because a process that is killed or still writes leaves it so.
    """
    rows, wrong = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                wrong.append(f"line {number} is not JSON")
            continue
        complaint = wrong_row(row)
        if complaint:
            wrong.append(f"line {number} {complaint}")
        else:
            rows.append(row)
    if not rows and not wrong and any(line.strip() for line in lines):
        wrong.append("its only line is not JSON")
    return rows, wrong if len(wrong) <= 3 else [*wrong[:2], f"and {len(wrong) - 2} more lines"]


def _gap(facts: RunFacts) -> str:
    """Returns a message if the rows end before the newest valid checkpoint, else ""."""
    step = step_of_checkpoint(facts.valid) if facts.valid is not None else None
    every = facts.config.log_interval if facts.config is not None else 0
    if not step or not every or facts.last_step >= step - step % every:
        return ""
    end = f"the rows end at step {facts.last_step}" if facts.rows else "there are no rows"
    return f"{end}, but the newest checkpoint is of step {step}"


def _summary(facts: RunFacts) -> Line:
    """Returns the line for rows that are all readable."""
    losses = [row for row in facts.rows if "loss" in row]
    empty = [str(row["step"]) for row in losses if row["loss"] is None]
    last = next((row for row in reversed(losses) if row["loss"] is not None), None)
    message = f"{len(losses)} rows" if facts.rows else "no rows yet"
    if last is not None:
        message += f", the last at step {last['step']} with a loss of {last['loss']:.4f}"
    advice = []
    if empty:
        message += f"; no finite loss in the rows at step {listing(empty)}"
        advice.append("see docs/trouble.md on losses that are not finite")
    if gap := _gap(facts):
        message = f"{facts.folder.metrics}: {message}; {gap}"
        advice.append("restore the file from a copy: the run resumes without it, but its curves "
                      "have a gap")  # fmt: skip
    return warning("metrics", message, "; ".join(advice)) if advice else ok("metrics", message)


def check_signs(facts: RunFacts, config: TrainConfig) -> Iterator[Line]:
    """Reports the warnings stored in the rows, and those that the rows give rise to now."""
    steps = Checkpoints(facts.folder.checkpoints).steps
    watch = RunWatch(config, dtype=config.model.dtype or "float32", steps=steps)
    findings: list[Finding] = []
    unreadable: list[str] = []
    for row in facts.rows:
        try:
            stored = [Finding(**one) for one in row.get("warnings", ())]
            stored += watch.observe(row["step"], row)
        except Exception:  # a row that was edited or damaged must not hide what the others show
            unreadable.append(str(row["step"]))
            continue
        findings += stored
    newest = {finding.kind: finding for finding in findings}
    for finding in newest.values():
        times = len({one.step for one in findings if one.kind == finding.kind})
        more = f" (reported {times} times)" if times > 1 else ""
        name, text = str(finding.kind).replace("_", " "), f"{finding.text}{more}"
        yield warning(name, text, str(finding.advice))
    failures = _watch_failures(facts)
    if failures:
        advice = "the checkpoints are not affected, but grids, evaluations or trackers' values may "
        advice += "be missing; the run's output has the first error of each kind"
        yield warning("watchers", failures, advice)
    if unreadable:
        message = f"{facts.folder.metrics}: values of the wrong kind at step {listing(unreadable)}"
        advice = "restore these rows from a copy, or remove them; they are left out of this report"
        yield problem("signs", message, advice)
    elif facts.rows and not findings and not failures:
        message = "no diverging loss, no waiting for data, no unused captions, no overflow"
        yield ok("signs", message)


def _watch_failures(facts: RunFacts) -> str:
    """Describes what failed beside the training, as the results or else the rows record it."""
    stored = (facts.results or {}).get("warnings") or ()
    texts = [str(one["text"]) for one in stored if one.get("kind") == "watcher"]
    counts = [row["watch_failures"] for row in facts.rows if "watch_failures" in row]
    if texts or not counts:
        return listing(texts)
    return f"what runs beside the training failed {int(counts[-1])} times"


def seems_alive(facts: RunFacts) -> float | None:
    """Returns the seconds since the last row, or None if the run does not seem to be running."""
    seconds = age(facts.folder.metrics)
    return max(seconds, 0.0) if seconds < RECENT else None
