"""One self-contained page that tells a preparation: figures, ends of all rows, pictures, settings.

Captions and details come from strangers; nothing of theirs gets into the page unescaped, and the
page has no scripts.
"""

from __future__ import annotations

import io
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
from pinxit.html_report import (
    Html,
    command_line,
    folded_json,
    heading,
    note,
    page,
    paragraph,
    picture,
    table,
)
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
body { max-width: 84rem }
figure { margin: 0 }
td, th { padding: .2rem .9rem }
td:first-child, td:nth-child(2), th { text-align: left }
.bar { background: #7aa6d8; height: .8rem }
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
    parts = [paragraph(_sentence(records, counts, identity)), *_networks(notes)]
    if command:
        parts += [heading("Command"), command_line(command)]
    reasons = [(getattr(result.unit, "id", result.unit), result.reason) for result in failed]
    skipped = list(ledger.skipped().items())
    for label, units in (("Units that failed", reasons), ("Units left out", skipped)):
        if units:
            parts += [heading(label), *_reasons(units)]
    parts += [heading("What became of every row"), _ends(counts)]
    for label, name, png in _pictures(root, records, identity):
        with whole(root / PICTURES / name) as temporary:
            temporary.write_bytes(png)
        parts += [heading(label), picture(png, label)]
    parts += [*_manifest(root), heading("Settings")]
    parts += [folded_json("decide the content", identity), folded_json("do not", notes)]
    path = root / REPORT
    with whole(path) as temporary:
        temporary.write_text(page(root.name, parts, style=STYLE), encoding="utf-8")
    return path


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


def _networks(notes: Mapping[str, Any]) -> list[Html]:
    """A remark where private networks were opened, or opt-outs not honoured."""
    fetch = notes.get("fetch", {})
    remarks = []
    if fetch.get("allow_networks"):
        networks = ", ".join(fetch["allow_networks"])
        remarks.append(f"Fetched from networks that are not public, as asked for: {networks}.")
    if fetch.get("honour_opt_out") is False:
        remarks.append("Opt-outs of the owners (X-Robots-Tag) were not honoured.")
    return [note(remark) for remark in remarks]


def _reasons(units: Sequence[tuple[object, str]]) -> list[Html]:
    """Returns a table of units and reasons, of the first fifty."""
    rest = len(units) - 50
    more = [paragraph(f"and {rest} more")] if rest > 0 else []
    return [table(("unit", "reason"), units[:50]), *more]


def _ends(counts: Counter[str]) -> Html:
    """Returns a table of statuses, the most frequent first."""
    rows = []
    for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        share = count / counts.total()
        bar = Html(f"<div class='bar' style='width:{max(1, round(300 * share))}px'></div>")
        rows.append((status, meaning(status), f"{count:,}", f"{share:.2%}", bar))
    return table(("end", "meaning", "rows", "share", ""), rows)


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


def _manifest(root: Path) -> list[Html]:
    """Sizes and the latents' statistics; a remark where the dataset is not finished."""
    try:
        manifest = Manifest.read(root)
    except Unfinished as error:
        return [note(error)]
    sizes = ", ".join(f"{name} {manifest.bytes(name) / 1e9:.3f} GB" for name in manifest.files)
    parts = [heading("On the disk"), paragraph(f"{sizes}; {manifest.fingerprint()}")]
    if manifest.latents is None:
        return parts
    count, lost = manifest.latents["count"], manifest.latents["not_finite"]
    statistics = zip(manifest.latents["mean"], manifest.latents["std"], strict=True)
    rows = [(i, f"{mean:.4f}", f"{std:.4f}") for i, (mean, std) in enumerate(statistics)]
    parts += [heading("Latents")]
    parts += [paragraph(f"{count:,} latents, {lost:,} left out as not finite.")]
    return [*parts, table(("channel", "mean", "standard deviation"), rows)]
