"""One self-contained page that tells a preparation: figures, ends of all rows, pictures, settings.

Captions and details come from strangers; nothing of theirs gets into the page unescaped, and the
page has no scripts.
"""

from __future__ import annotations

import base64
import html
import io
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.config import from_json
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.outcome import can_heal, is_dropped, meaning
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.files import whole
from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.report_pictures import (
    all_records,
    kept_images,
    merged_histograms,
    rejected_images,
    score_histograms,
)

REPORT = "report.html"
PICTURES = "report"
"""The folder of the pictures, beside the page, which bears them as well."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto }
pre { background: #f4f5f7; padding: .8rem; overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: .2rem .9rem; border-bottom: 1px solid #e3e3e3; text-align: right }
td:first-child, td:nth-child(2), th { text-align: left }
.bar { background: #7aa6d8; height: .8rem }
.note { background: #fff3cd; padding: .5rem .8rem }
"""


def write_preparation_report(
    root: Path, *, command: Sequence[str] = (), failed: Sequence[UnitResult] = ()
) -> Path:
    """Writes ``report.html`` and its pictures for what is done so far; returns its path."""
    records = all_records(root)
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts)
    ledger = Ledger(root, "images")
    identity, notes = ledger.identity() or {}, ledger.notes()
    parts = [
        f"<h1>{_text(root.name)}</h1>",
        f"<p>{_text(_sentence(records, counts, identity))}</p>",
        *_networks(notes),
    ]
    if command:
        parts += ["<h2>Command</h2>", f"<pre>{_text(shlex.join(command))}</pre>"]
    reasons = [(getattr(result.unit, "id", result.unit), result.reason) for result in failed]
    skipped = list(ledger.skipped().items())
    for heading, found in (("Units that failed", reasons), ("Units left out", skipped)):
        if found:
            parts += [f"<h2>{heading}</h2>", _reasons(found)]
    parts += ["<h2>What became of every row</h2>", _ends(counts)]
    for heading, name, picture in _pictures(root, records, identity):
        parts += [f"<h2>{heading}</h2>", _embed(root / PICTURES / name, heading, picture)]
    parts += _manifest(root)
    parts.append("<h2>Settings</h2>")
    for name, value in (("decide the content", identity), ("do not", notes)):
        parts.append(f"<details><summary>{name}</summary><pre>{_json(value)}</pre></details>")
    title = f"<meta charset='utf-8'><title>{_text(root.name)}</title><style>{STYLE}</style>"
    page = f"<!doctype html><html lang='en'><head>{title}</head><body>{''.join(parts)}</body>"
    path = root / REPORT
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _text(value: object) -> str:
    return html.escape(str(value))


def _json(value: Any) -> str:
    return _text(json.dumps(value, indent=2, ensure_ascii=False))


def _sentence(
    records: Sequence[UnitRecord], counts: Counter[str], identity: Mapping[str, Any]
) -> str:
    """The preparation in a sentence or two."""
    source = identity.get("source", {})
    said = f"Source {source.get('name')}, revision {source.get('revision')}: "
    said += f"{counts.total():,} rows in {len(records):,} units, {counts['ok']:,} images kept"
    if counts.total():
        said += f" ({counts['ok'] / counts.total():.1%})"
    tried = sum(n for status, n in counts.items() if not is_dropped(status))
    if tried:
        said += f"; of the {tried:,} that passed the filters, {counts['ok'] / tried:.1%}"
    healable = sum(n for status, n in counts.items() if can_heal(status))
    if healable:
        said += f"; {healable:,} failed in a way that may heal (retry the failed rows)"
    return f"{said}. {sum(record.seconds for record in records):,.0f} seconds of work."


def _networks(notes: Mapping[str, Any]) -> list[str]:
    """A remark where private networks were opened, or opt-outs not honoured."""
    fetch = notes.get("fetch", {})
    remarks = []
    if fetch.get("allow_networks"):
        networks = ", ".join(fetch["allow_networks"])
        remarks.append(f"Fetched from networks that are not public, as asked for: {networks}.")
    if fetch.get("honour_opt_out") is False:
        remarks.append("Opt-outs of the owners (X-Robots-Tag) were not honoured.")
    return [f"<p class='note'>{_text(remark)}</p>" for remark in remarks]


def _reasons(found: Sequence[tuple[object, str]]) -> str:
    """A table of units and reasons."""
    rows = [
        f"<tr><td>{_text(unit)}</td><td>{_text(reason)}</td></tr>" for unit, reason in found[:50]
    ]
    more = f"<p>and {len(found) - 50} more</p>" if len(found) > 50 else ""
    return f"<table><tr><th>unit</th><th>reason</th></tr>{''.join(rows)}</table>{more}"


def _ends(counts: Counter[str]) -> str:
    """A table of statuses, the most frequent first."""
    rows = []
    for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        share = count / counts.total()
        bar = f"<div class='bar' style='width:{max(1, round(300 * share))}px'></div>"
        rows.append(
            f"<tr><td>{_text(status)}</td><td>{_text(meaning(status))}</td><td>{count:,}</td>"
            f"<td>{share:.2%}</td><td>{bar}</td></tr>"
        )
    head = "<tr><th>end</th><th>meaning</th><th>rows</th><th>share</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _pictures(
    root: Path, records: Sequence[UnitRecord], identity: Mapping[str, Any]
) -> list[tuple[str, str, bytes]]:
    """(heading, file name, PNG) of the pictures that there are."""
    filters = {k: v for k, v in identity.get("filters", {}).items() if k != "duplicates"}
    histograms = merged_histograms(records)
    found = [
        (
            "Scores of all rows, and the limits set on them",
            "scores.png",
            score_histograms(histograms, from_json(FilterConfig, filters)),
        ),
        ("Kept", "kept.png", _png(kept_images(root, records))),
        ("Turned away by the filters", "rejected.png", _png(rejected_images(root))),
    ]
    return [(heading, name, data) for heading, name, data in found if data is not None]


def _png(picture: Image.Image | None) -> bytes | None:
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _embed(path: Path, heading: str, picture: bytes) -> str:
    """Writes the picture, and shows it in the page."""
    with whole(path) as temporary:
        temporary.write_bytes(picture)
    data = base64.b64encode(picture).decode()
    return f'<img alt="{_text(heading)}" src="data:image/png;base64,{data}">'


def _manifest(root: Path) -> list[str]:
    """Sizes and the latents' statistics; a remark where the dataset is not finished."""
    try:
        manifest = Manifest.read(root)
    except Unfinished as error:
        return [f"<p class='note'>{_text(error)}</p>"]
    sizes = ", ".join(f"{name} {manifest.bytes(name) / 1e9:.3f} GB" for name in manifest.files)
    parts = ["<h2>On the disk</h2>", f"<p>{_text(sizes)}; {manifest.fingerprint()}</p>"]
    if manifest.latents is None:
        return parts
    count, lost = manifest.latents["count"], manifest.latents["not_finite"]
    parts += ["<h2>Latents</h2>", f"<p>{count:,} latents, {lost:,} left out as not finite.</p>"]
    rows = zip(manifest.latents["mean"], manifest.latents["std"], strict=True)
    cells = [
        f"<tr><td>{i}</td><td>{mean:.4f}</td><td>{std:.4f}</td></tr>"
        for i, (mean, std) in enumerate(rows)
    ]
    head = "<tr><th>channel</th><th>mean</th><th>standard deviation</th></tr>"
    return [*parts, f"<table>{head}{''.join(cells)}</table>"]
