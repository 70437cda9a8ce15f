"""The page of a run as one file, `report.html`: the studio's view of runs with its data inside.

It opens from a disk or an archive without a server and loads nothing. A policy in the page allows
the one script and the one style that it contains. Without scripts, it shows the figures as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pinxit.files import whole
from pinxit.html_report import (
    Html,
    bullets,
    escaped,
    folded_json,
    heading,
    paragraph,
    table,
)
from pinxit.plain_json import plain_values
from pinxit.train.report.metrics_tail import MetricsTail
from pinxit.train.report.page_script import joined
from pinxit.train.report.run_samples import EmbeddedGrids
from pinxit.train.report.run_view import batch_size_of, run_view
from pinxit.train.report.thinned_rows import ThinnedRows
from pinxit.train.run_folder import RunFolder

STUDIO = Path(__file__).parents[2] / "assets" / "studio"
"""The files of the studio's page."""
CHANGED = "Settings that changed during the run"
STYLES = ("base.css", "components.css", "chart.css", "runs.css", "samples.css")
NOTE = (
    "The file contains all it shows and needs no server. Curves of more than 2,000 values are "
    "thinned to their extremes; metrics.jsonl has all of them."
)


@dataclass
class RunPage:
    """Writes the page of a run, as often as the run has something new. Rows are read, and pictures
    converted, once, and only what the page shows stays in memory."""

    folder: RunFolder
    _rows: ThinnedRows | None = None
    _grids: EmbeddedGrids = field(default_factory=EmbeddedGrids)

    def __post_init__(self) -> None:
        self._tail = MetricsTail(self.folder.metrics)

    def write(
        self,
        *,
        unwritten: Sequence[Mapping[str, Any]] = (),
        finishing: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the page. `unwritten` are rows that metrics.jsonl does not have yet, and
        `finishing` the results of a run that is about to write them."""
        rows = self._known_rows()
        if unwritten:
            rows = rows.copied()
            rows.add(unwritten)
        view = run_view(self.folder, rows=rows, describe=self._grids.all, finishing=finishing)
        text = page_of([view])
        with whole(self.folder.report) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _known_rows(self) -> ThinnedRows:
        """Returns the rows of metrics.jsonl, of which new ones are added to the known ones."""
        again, new = self._tail.read()
        if again or self._rows is None:
            self._rows = ThinnedRows(batch_size_of(self.folder))
        self._rows.add(new)
        return self._rows


def page_of(views: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of one or several runs as HTML."""
    script, style = _parts()
    data = {"runs": list(views), "written": time.strftime("%Y-%m-%d %H:%M"), "note": NOTE}
    names = ", ".join(str(view["name"]) for view in views)
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; "
        f"style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    fallback = "".join(part for view in views for part in without_scripts(view))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(names)} · Pinxit run</title>
<style>{style}</style>
</head>
<body>
<header class="bar"><span class="brand">Pinxit run</span><span class="views"></span>
<button class="button quiet" id="theme" type="button"></button></header>
<main id="view"></main>
<noscript><main>{fallback}</main></noscript>
<script type="application/json" id="run-data">{as_data(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def as_data(value: Any) -> str:
    """Returns a value as JSON that no text can leave: without ``<``, and on one line."""
    text = json.dumps(plain_values(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


@cache
def _parts() -> tuple[str, str]:
    """Returns the script and the style of the page."""
    style = "".join((STUDIO / "css" / name).read_text(encoding="utf-8") for name in STYLES)
    return joined(STUDIO / "js" / "runs" / "static_page.js"), style


def _hash(text: str) -> str:
    """Returns the hash of a script or a style, as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def without_scripts(view: Mapping[str, Any]) -> list[Html]:
    """Returns what a reader without scripts sees of a run: its figures as text and tables."""
    parts = [Html(f"<h1>{escaped(view['name'])}</h1>"), paragraph(view["summary"] or view["words"])]
    warnings = [event for event in view["events"] if event["kind"] == "warning"]
    if warnings:
        parts += [heading("Warnings"), bullets(map(_warning, warnings))]
    for kind, title in (("change", CHANGED), ("resume", "Resumes")):
        events = [event for event in view["events"] if event["kind"] == kind]
        lines = (f"step {event['step']}: {event['text']}" for event in events)
        parts += [heading(title), bullets(lines)] if events else []
    for one in view["tables"]:
        parts += [heading(one["title"]), table(one["head"], one["rows"], best=one["best"])]
    if protocol := view["protocol"]:
        parts += [
            heading("Protocol of the evaluation"),
            table(protocol["head"], protocol["rows"]),
        ]
    if counts := view["outcomes"]:
        parts += [heading(counts["title"]), table(counts["head"], counts["rows"])]
    parts += [heading("Command"), Html(f"<pre>{escaped(view['command'])}</pre>")]
    parts += [heading("Settings and machine"), folded_json("config.json", view["config"])]
    return [*parts, folded_json("environment", view["environment"])]


def _warning(event: Mapping[str, Any]) -> str:
    """Returns a warning's text and advice as sentences."""
    advice = event["advice"]
    return f"{event['text']}. {advice[0].upper()}{advice[1:]}." if advice else event["text"]
