"""One self-contained page that tells a run: figures, pictures, command, settings, machine."""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.data.outcome import meaning
from pinxit.files import whole

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto }
pre { background: #f4f5f7; padding: .8rem; overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: .25rem .9rem; border-bottom: 1px solid #e3e3e3; text-align: right }
td:first-child, th:first-child { text-align: left }
.best { font-weight: 600; background: #eef6ee }
"""


def _image(path: Path, caption: str) -> str:
    """The picture, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"></figure>'


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], best: int | None = None) -> str:
    """An HTML table; row `best` stands out."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == best else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _accuracy(accuracy: Mapping[str, float]) -> str:
    """Prompt accuracy by attribute, between chance and ceiling."""
    prefix = "prompts/accuracy/"
    names = [name.removeprefix(prefix) for name in accuracy if name.startswith(prefix)]
    kinds = ("accuracy", "ceiling", "chance")
    rows = [
        [name, *(accuracy.get(f"prompts/{kind}/{name}", "") for kind in kinds)] for name in names
    ]
    return _table(("attribute", *kinds), rows, best=0)


def _rows(counts: Mapping[str, int]) -> str:
    """Rows of the dataset by how they ended, the most frequent end first."""
    total = sum(counts.values())
    rows = [
        [status, f"{count:,}", f"{count / total:.2%}", meaning(status)]
        for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return _table(("end", "rows", "share", "meaning"), rows)


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> str:
    """What the watch said, in the order of the steps."""
    items = (f"<li>{html.escape(one['text'])}</li>" for one in warnings)
    return f"<ul>{''.join(items)}</ul>"


def _probe(probe: Mapping[str, float]) -> str:
    """The held-out loss with a row's own caption, another's, and none; same noise and times."""
    named = {"own": "loss", "another row's": "loss_shuffled", "the empty one": "loss_null"}
    rows = [[what, probe[f"conditioning/{name}"]] for what, name in named.items()]
    gain, error = probe["conditioning/gain"], probe["conditioning/gain_error"]
    said = f"A row's own caption lowers the loss by {gain:.2%}, give or take {error:.2%}."
    return _table(("caption", "loss"), rows) + f"<p>{said}</p>"


def _details(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary><pre>{html.escape(text)}</pre></details>"


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
    parts = [f"<h1>{html.escape(name)}</h1>", f"<p>{html.escape(summary(results))}</p>"]
    for heading, picture in pictures.items():
        if picture.is_file():
            parts += [f"<h2>{html.escape(heading)}</h2>", _image(picture, heading)]
    if warnings := results.get("warnings"):
        parts += ["<h2>What was noticed</h2>", _warnings(warnings)]
    if accuracy := results.get("accuracy"):
        parts += ["<h2>Held-out prompts</h2>", _accuracy(accuracy)]
    if losses := results.get("validation"):
        chosen = list(losses).index(results["ema"]) if results.get("ema") in losses else None
        rows = [[label, loss] for label, loss in losses.items()]
        parts += [
            "<h2>Validation loss by average</h2>",
            _table(("parameters", "loss"), rows, chosen),
        ]
    if probe := results.get("probe"):
        parts += ["<h2>What captions do</h2>", _probe(probe)]
    if rows := (results.get("data") or {}).get("rows"):
        parts += ["<h2>What became of the rows</h2>", _rows(rows)]
    parts += ["<h2>Command</h2>", f"<pre>{html.escape(shlex.join(command))}</pre>"]
    parts.append("<h2>Settings and machine</h2>")
    parts.append(_details("config.json", json.dumps(config, indent=2)))
    parts.append(_details("environment", json.dumps(environment, indent=2)))
    head = f"<meta charset='utf-8'><title>{html.escape(name)}</title><style>{STYLE}</style>"
    page = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body>"
    with whole(path) as temporary:
        temporary.write_text(page)


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
