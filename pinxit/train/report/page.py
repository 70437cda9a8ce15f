"""One self-contained page that tells a run: figures, pictures, command, settings, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.data.outcome import meaning
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


def _accuracy(accuracy: Mapping[str, float]) -> Html:
    """Prompt accuracy by attribute, between chance and ceiling."""
    prefix = "prompts/accuracy/"
    names = [name.removeprefix(prefix) for name in accuracy if name.startswith(prefix)]
    kinds = ("accuracy", "ceiling", "chance")
    rows = [
        [name, *(accuracy.get(f"prompts/{kind}/{name}", "") for kind in kinds)] for name in names
    ]
    return table(("attribute", *kinds), rows, best=0)


def _rows(counts: Mapping[str, int]) -> Html:
    """Rows of the dataset by how they ended, the most frequent end first."""
    total = sum(counts.values())
    rows = [
        [status, f"{count:,}", f"{count / total:.2%}", meaning(status)]
        for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return table(("end", "rows", "share", "meaning"), rows)


def _probe(probe: Mapping[str, float]) -> list[Html]:
    """The held-out loss with a row's own caption, another's, and none; same noise and times."""
    named = {"own": "loss", "another row's": "loss_shuffled", "the empty one": "loss_null"}
    rows = [[what, probe[f"conditioning/{name}"]] for what, name in named.items()]
    gain, error = probe["conditioning/gain"], probe["conditioning/gain_error"]
    said = f"A row's own caption lowers the loss by {gain:.2%}, give or take {error:.2%}."
    return [table(("caption", "loss"), rows), paragraph(said)]


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
        parts += [heading("What was noticed"), bullets(one["text"] for one in warnings)]
    if accuracy := results.get("accuracy"):
        parts += [heading("Held-out prompts"), _accuracy(accuracy)]
    if losses := results.get("validation"):
        chosen = list(losses).index(results["ema"]) if results.get("ema") in losses else None
        rows = [[label, loss] for label, loss in losses.items()]
        parts.append(heading("Validation loss by average"))
        parts.append(table(("parameters", "loss"), rows, best=chosen))
    if probe := results.get("probe"):
        parts += [heading("What captions do"), *_probe(probe)]
    if counts := (results.get("data") or {}).get("rows"):
        parts += [heading("What became of the rows"), _rows(counts)]
    parts += [heading("Command"), command_line(command), heading("Settings and machine")]
    parts += [folded_json("config.json", config), folded_json("environment", environment)]
    with whole(path) as temporary:
        temporary.write_text(page(name, parts, style=STYLE), encoding="utf-8")


def summary(results: Mapping[str, Any]) -> str:
    """Returns the run in one sentence: steps, time, size, accuracy."""
    said = [f"{results['step']} steps, {results['images']} images"]
    if results.get("train_seconds"):
        said.append(f"{results['train_seconds'] / 60:.1f} minutes of training")
    said.append(f"{results['parameters'] / 1e6:.2f} M parameters")
    if results.get("skipped"):
        said.append(f"{results['skipped']} steps skipped (not finite)")
    if results.get("ema"):
        said.append(f"drawn with {results['ema']}, the best of its averages on validation")
    if mean := (results.get("accuracy") or {}).get("prompts/accuracy/mean"):
        said.append(f"held-out prompt accuracy {mean:.3f}")
    return "; ".join(said) + "."
