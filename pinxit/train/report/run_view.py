"""The data of a run's page, as JSON: from the studio, or inside the page in the run's folder.

Everything is read from the run's folder, which may come from anywhere: what cannot be read is left
out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pinxit.config import UsageError, read_json, written
from pinxit.data.outcome import outcome_figures
from pinxit.evaluate.record import protocol_table
from pinxit.evaluate.tables import Table, tables
from pinxit.plain_json import PLAIN, plain_values
from pinxit.train.metric_rows import read_rows
from pinxit.train.report.run_charts import charts_of
from pinxit.train.report.run_rows import RunRows, finite
from pinxit.train.report.run_samples import GridFacts, grids
from pinxit.train.report.run_state import WORDS, RunState, results_of, state_of
from pinxit.train.report.thinned_rows import ThinnedRows
from pinxit.train.run_folder import RECORDS, RunFolder
from pinxit.train.run_starts import starts_of

T = TypeVar("T")
AnyRows = RunRows | ThinnedRows
Grids = Callable[[Sequence[tuple[int, Path]]], list[dict[str, Any]]]


def run_view(
    folder: RunFolder,
    *,
    rows: AnyRows | None = None,
    describe: Grids | None = None,
    finishing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns everything that the page of a run shows.

    `rows` are those of metrics.jsonl, which are read without it. `describe` returns the facts of
    sample grids. `finishing` are the results of a run that is about to write them.
    """
    config = _read(folder.config)
    rows = rows if rows is not None else read_run_rows(folder)
    results = dict(finishing) if finishing is not None else results_of(folder) or {}
    max_steps = _count(config.get("max_steps"))
    newest = rows.newest
    step = max(newest["step"] if newest else 0, _count(results.get("step")))
    environment = _read(folder.root / "environment.json")
    command = environment.pop("command", None)
    evaluation, at = _evaluation(rows, results)
    if finishing is not None:
        state = RunState("finished", WORDS["finished"])
    else:
        state = state_of(folder, max_steps=max_steps, latest=newest["values"] if newest else None)
    return _finite_values(
        {
            "name": str(config.get("name") or folder.root.name),
            "folder": folder.root.name,
            **state.to_json(),
            "step": step,
            "max_steps": max_steps,
            "seconds": _seconds(rows, results),
            "seconds_left": remaining_seconds(rows, max_steps)
            if state.state == "running"
            else None,
            "summary": _readable(lambda: summary(results), "") if results.get("parameters") else "",
            **rows.curves(),
            "charts": charts_of(rows.steps_by_name),
            "profiles": rows.profiles(),
            "events": events_of(folder, rows, results, config),
            "samples": (describe or GridFacts().all)(grids(folder, last_step=results.get("step"))),
            "tables": _readable(lambda: _tables(evaluation, results.get("ema")), []),
            "evaluated_at": at,
            "protocol": _readable(lambda: _table(protocol_table(results["protocol"])), None)
            if results.get("protocol")
            else None,
            "outcomes": _readable(lambda: outcomes((results.get("data") or {}).get("rows")), None),
            "command": shlex.join(map(str, command)) if isinstance(command, list) else "",
            "config": {name: value for name, value in config.items() if name not in RECORDS},
            "settings": flat_settings(config),
            "environment": environment,
        }
    )


def _readable(part: Callable[[], T], default: T) -> T:
    """Returns a part of the view, or `default` if results have another form than a run writes."""
    try:
        return part()
    except (AttributeError, KeyError, TypeError, ValueError):
        return default


def _finite_values(value: Any) -> Any:
    """Returns a value as plain JSON values, in which NaN and infinity are None."""
    if type(value) in PLAIN and type(value) is not float:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_values(inner) for inner in value]
    return plain_values(value)


def read_run_rows(folder: RunFolder) -> RunRows:
    """Returns the rows of a run's metrics.jsonl."""
    rows = RunRows(batch_size_of(folder))
    rows.add(read_rows(folder.metrics))
    return rows


def batch_size_of(folder: RunFolder) -> int:
    """Returns the number of rows per step."""
    return _count(_read(folder.config).get("batch_size"))


def max_steps_of(folder: RunFolder) -> int:
    """Returns the number of steps that a run is to take."""
    return _count(_read(folder.config).get("max_steps"))


def _read(path: Path) -> dict[str, Any]:
    """Returns a file of JSON, or nothing if it is missing or damaged."""
    try:
        value = read_json(path) if path.is_file() and not path.is_symlink() else {}
    except (UsageError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(rows: AnyRows, results: Mapping[str, Any]) -> float:
    """Returns the training time."""
    total = finite(results.get("train_seconds"))
    return total if total is not None else (rows.newest["seconds"] if rows.newest else 0.0)


def remaining_seconds(rows: AnyRows, max_steps: int) -> float | None:
    """Returns the training time that is left, at the newest pace."""
    pace = rows.latest("seconds_per_step")
    if pace is None or rows.newest is None:
        return None
    return max(0.0, pace * (max_steps - rows.newest["step"]))


def _evaluation(rows: AnyRows, results: Mapping[str, Any]) -> tuple[dict[str, float], int | None]:
    """Returns the newest values of the evaluators, and their step."""
    values = results.get("evaluation")
    if isinstance(values, Mapping) and values:
        numbers = {str(n): v for n, v in values.items() if isinstance(v, int | float)}
        return numbers, _count(results.get("step"))
    return rows.measured()


def _tables(values: Mapping[str, float], chosen: Any) -> list[dict[str, Any]]:
    """Returns a table for each group of values. `chosen` names the best average."""
    shown = []
    for group in tables(values):
        names = [row[0] for row in group.rows]
        best = chosen if chosen in names else "mean"
        shown.append(_table(group, best=names.index(best) if best in names else None))
    return shown


def _table(table: Table, best: int | None = None) -> dict[str, Any]:
    """Returns a table as JSON, with its cells as text and the number of its best row."""
    title = table.title[:1].upper() + table.title[1:]
    return {"title": title, "head": table.head, "rows": table.texts, "best": best}


def outcomes(counts: Any) -> dict[str, Any] | None:
    """Returns a table of the dataset's rows by outcome, the most frequent first."""
    if not isinstance(counts, Mapping) or not counts:
        return None
    rows = [
        [one.status, f"{one.rows:,}", f"{one.share:.2%}", one.meaning]
        for one in outcome_figures(counts)
    ]
    return {
        "title": "Outcome of the rows",
        "head": ("outcome", "rows", "share", "meaning"),
        "rows": rows,
        "best": None,
    }


def events_of(
    folder: RunFolder, rows: AnyRows, results: Mapping[str, Any], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns the warnings, changes and resumes of a run in the order of their steps."""
    findings = [*rows.warnings, *_mappings(results.get("warnings"))]
    events = [
        _event(
            "warning", one.get("step"), str(one.get("text", "")), advice=str(one.get("advice", ""))
        )
        for one in findings
    ]
    for one in _mappings(config.get("changes")):
        words = f"{one.get('setting')}: {written(one.get('old'))} → {written(one.get('new'))}"
        events.append(_event("change", one.get("step"), words))
    for one in _mappings(config.get("resumed_at")):
        words = f"went back to step {_count(one.get('step')):,}"
        events.append(_event("resume", one.get("step"), words))
    for one in starts_of(folder.root):
        if one["step"]:
            words = f"resumed after step {int(one['step']):,}"
            events.append(_event("resume", int(one["step"]), words))
    unique = {tuple(sorted(event.items())): event for event in events}
    return sorted(unique.values(), key=lambda event: event["step"])


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _event(kind: str, step: Any, text: str, advice: str = "") -> dict[str, Any]:
    return {"kind": kind, "step": _count(step), "text": text, "advice": advice}


def flat_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the settings by dotted name, as text."""
    shown: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                add(f"{prefix}.{name}", inner)
        else:
            shown[prefix] = value if isinstance(value, str) else written(value)

    for name, value in config.items():
        if name not in RECORDS:
            add(str(name), value)
    return shown


def summary(results: Mapping[str, Any]) -> str:
    """Returns the run in one sentence: steps, time, size, accuracy."""
    parts = [f"{results['step']} steps, {results['images']} images"]
    if results.get("train_seconds"):
        parts.append(f"{results['train_seconds'] / 60:.1f} minutes of training")
    parts.append(f"{results['parameters'] / 1e6:.2f} M parameters")
    if results.get("skipped"):
        parts.append(f"{results['skipped']} steps skipped (not finite)")
    if results.get("ema"):
        reason = " (lowest validation loss)" if results.get("validation") else ""
        parts.append(f"images from {results['ema']}{reason}")
    if mean := (results.get("accuracy") or {}).get("prompts/accuracy/mean"):
        parts.append(f"held-out prompt accuracy {mean:.3f}")
    return ", ".join(parts) + "."
