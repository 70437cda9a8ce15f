"""The self-contained report page of a run: figures, images, command, settings, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.config import written
from pinxit.data.outcome import meaning
from pinxit.evaluate.record import protocol_table
from pinxit.evaluate.tables import tables
from pinxit.files import whole
from pinxit.html_report import (
    Html,
    bullets,
    command_line,
    folded_json,
    heading,
    page,
    paragraph,
    picture,
    table,
)

STYLE = "h1 { margin-bottom: 0 }"


def _evaluation(values: Mapping[str, float], chosen: str | None) -> list[Html]:
    """Returns a heading and a table for each group of values. `chosen` names the best average."""
    parts: list[Html] = []
    for group in tables(values):
        names = [row[0] for row in group.rows]
        best = chosen if chosen in names else "mean"
        parts.append(heading(group.title[:1].upper() + group.title[1:]))
        parts.append(
            table(group.head, group.texts, best=names.index(best) if best in names else None)
        )
    return parts


def _protocol(protocol: Mapping[str, Any]) -> Html:
    """Returns a table of what the figures depend on."""
    shown = protocol_table(protocol)
    return table(shown.head, shown.rows)


def _rows(counts: Mapping[str, int]) -> Html:
    """Returns a table of the dataset's rows by outcome, the most frequent first."""
    total = sum(counts.values())
    rows = [
        [status, f"{count:,}", f"{count / total:.2%}", meaning(status)]
        for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return table(("outcome", "rows", "share", "meaning"), rows)


def _warning(finding: Mapping[str, Any]) -> str:
    """Returns a finding's text and advice as sentences."""
    advice = finding.get("advice", "")
    return f"{finding['text']}. {advice[0].upper()}{advice[1:]}." if advice else finding["text"]


def _changes(changes: Sequence[Mapping[str, Any]]) -> Html:
    """Returns a table of the changes to the settings."""
    rows = [[str(c["step"]), c["setting"], written(c["old"]), written(c["new"])] for c in changes]
    return table(("from step", "setting", "old", "new"), rows)


def write_run_report(
    path: Path,
    *,
    name: str,
    results: Mapping[str, Any],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    command: Sequence[str],
    pictures: Mapping[str, Path],
) -> None:
    """Writes the page: `pictures` by heading, then figures, then the command and the settings."""
    parts = [paragraph(summary(results))]
    for label, path_of_picture in pictures.items():
        if path_of_picture.is_file():
            parts += [heading(label), picture(path_of_picture.read_bytes(), label)]
    if warnings := results.get("warnings"):
        parts += [heading("Warnings"), bullets(map(_warning, warnings))]
    if changes := results.get("changes"):
        parts += [heading("Settings that changed during the run"), _changes(changes)]
    parts += _evaluation(results.get("evaluation", {}), results.get("ema"))
    if protocol := results.get("protocol"):
        parts += [heading("Protocol of the evaluation"), _protocol(protocol)]
    if counts := (results.get("data") or {}).get("rows"):
        parts += [heading("Outcome of the rows"), _rows(counts)]
    parts += [heading("Command"), command_line(command), heading("Settings and machine")]
    parts += [folded_json("config.json", config), folded_json("environment", environment)]
    with whole(path) as temporary:
        temporary.write_text(page(name, parts, style=STYLE), encoding="utf-8")


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
