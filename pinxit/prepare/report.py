"""Writes the HTML report of a preparation: figures, outcomes of all rows, pictures and settings.

The page is self-contained and has no scripts. Captions and error details come from untrusted
sources, so all text is escaped.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.data.filters.resolve import stored_filters
from pinxit.data.images.decode import decode_jpeg
from pinxit.data.outcome import can_heal, is_dropped, meaning
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.files import whole
from pinxit.html_report import (
    Html,
    command_line,
    folded_json,
    gallery,
    heading,
    note,
    page,
    paragraph,
    picture,
    table,
)
from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.ledger import Ledger, UnitRecord, rows_by_status
from pinxit.prepare.rejected_previews import thumbnail
from pinxit.prepare.report_pictures import (
    Group,
    kept_images,
    merged_histograms,
    rejected_images,
    score_histograms,
    sheet,
)

REPORT = "report.html"
PICTURES = "report"
"""The folder beside the page with the pictures, which the page also embeds."""
STYLE = """
body { max-width: 84rem }
figure { margin: 0 }
.gallery { display: flex; flex-wrap: wrap; gap: 1.4rem .7rem; align-items: flex-start }
.gallery figure { width: 128px }
.gallery figcaption { font-size: .7rem; color: #444; margin-top: .1rem; overflow-wrap: anywhere }
td, th { padding: .2rem .9rem }
td:first-child, td:nth-child(2), th { text-align: left }
.bar { background: #7aa6d8; height: .8rem }
"""


def write_preparation_report(
    root: Path, *, command: Sequence[str] = (), failed: Sequence[UnitResult] = ()
) -> Path:
    """Writes ``report.html`` and its pictures for the units done so far, and returns its path.

    `command` is the command line, and `failed` are the units that failed in it.
    """
    ledger = Ledger(root, "images")
    records = ledger.records()
    counts = rows_by_status(records)
    identity, notes = ledger.identity() or {}, ledger.notes()
    parts = [paragraph(_sentence(records, counts, identity)), *_networks(notes)]
    if line := enlarged_line(records):
        parts.append(note(line))
    parts += [note(f"Not read: {line}") for line in notes.get("not_read", ())]
    if command:
        parts += [heading("Command"), command_line(command)]
    reasons = [(getattr(result.unit, "id", result.unit), result.reason) for result in failed]
    skipped = list(ledger.skipped().items())
    for label, units in (("Units that failed", reasons), ("Units left out", skipped)):
        if units:
            parts += [heading(label), *_reasons(units)]
    parts += [heading("Outcomes of all rows"), _outcomes(counts)]
    scores = _scores(records, identity)
    if scores is not None:
        label = "Scores of all rows, with the filters' limits"
        _write_picture(root, "scores.png", scores)
        parts += [heading(label), picture(scores, label)]
    for label, name, groups in (
        ("Images kept", "kept.png", kept_images(root, records)),
        ("Images rejected", "rejected.png", rejected_images(root)),
    ):
        if groups:
            _write_picture(root, name, _png(sheet(groups)))
            parts += [heading(label), *_galleries(groups)]
    parts += [*_manifest(root), heading("Settings")]
    parts += [
        folded_json("settings that determine the content", identity),
        folded_json("other settings", notes),
    ]
    path = root / REPORT
    with whole(path) as temporary:
        temporary.write_text(page(root.name, parts, style=STYLE), encoding="utf-8")
    return path


def _sentence(
    records: Sequence[UnitRecord], counts: Counter[str], identity: Mapping[str, Any]
) -> str:
    """Describes the preparation in a few sentences."""
    source = identity.get("source", {})
    text = f"Source {source.get('name')}, revision {source.get('revision')}: "
    text += f"{counts.total():,} rows in {len(records):,} units, {counts['ok']:,} images kept"
    if counts.total():
        text += f" ({counts['ok'] / counts.total():.1%} of the rows)"
    tried = sum(n for status, n in counts.items() if not is_dropped(status))
    if tried:
        text += f", which are {counts['ok'] / tried:.1%} of the {tried:,} that passed the filters"
    healable = sum(n for status, n in counts.items() if can_heal(status))
    if healable:
        text += f". {healable:,} rows failed for a reason that may be temporary (--retry_failed 1)"
    return f"{text}. {sum(record.seconds for record in records):,.0f} seconds of work."


def enlarged_line(records: Sequence[UnitRecord]) -> str:
    """Returns one line about kept images that were enlarged, with the first one, or ""."""
    enlarged = [record.measured.get("enlarged", {}) for record in records]
    count = sum(unit.get("rows", 0) for unit in enlarged)
    if not count:
        return ""
    first = next(unit["example"] for unit in enlarged if unit.get("rows"))
    images = "1 of the images kept was" if count == 1 else f"{count:,} of the images kept were"
    return f"{images} enlarged to the image size (the first: {first}; --filters.min_side limits it)"


def _networks(notes: Mapping[str, Any]) -> list[Html]:
    """Returns a note if private networks were allowed or opt-outs were ignored."""
    fetch = notes.get("fetch", {})
    remarks = []
    if fetch.get("allow_networks"):
        networks = ", ".join(fetch["allow_networks"])
        remarks.append(f"Networks that are not public were allowed on request: {networks}.")
    if fetch.get("honour_opt_out") is False:
        remarks.append("Opt-outs (X-Robots-Tag) were not respected.")
    return [note(remark) for remark in remarks]


def _reasons(units: Sequence[tuple[object, str]]) -> list[Html]:
    """Returns a table of the first fifty units with their reasons."""
    rest = len(units) - 50
    more = [paragraph(f"and {rest} more")] if rest > 0 else []
    return [table(("unit", "reason"), units[:50]), *more]


def _outcomes(counts: Counter[str]) -> Html:
    """Returns a table of the rows by status, the most frequent status first."""
    rows = []
    for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        share = count / counts.total()
        bar = Html(f"<div class='bar' style='width:{max(1, round(300 * share))}px'></div>")
        rows.append((status, meaning(status), f"{count:,}", f"{share:.2%}", bar))
    return table(("status", "meaning", "rows", "share", ""), rows)


def _scores(records: Sequence[UnitRecord], identity: Mapping[str, Any]) -> bytes | None:
    """Returns the histograms of scores as a PNG, or None if the rows have no scores."""
    return score_histograms(merged_histograms(records), stored_filters(identity))


def _galleries(groups: Sequence[Group]) -> list[Html]:
    """Returns the images of each group, with their captions as text."""
    parts: list[Html] = []
    for title, cells in groups:
        parts += [paragraph(title)] if title else []
        thumbnails = (
            (_png(Image.fromarray(thumbnail(decode_jpeg(jpeg)))), caption[:200])
            for jpeg, caption in cells
        )
        parts.append(gallery(thumbnails))
    return parts


def _write_picture(root: Path, name: str, png: bytes) -> None:
    """Writes a picture beside the report."""
    with whole(root / PICTURES / name) as temporary:
        temporary.write_bytes(png)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _manifest(root: Path) -> list[Html]:
    """Returns the sizes and the latents' statistics, or a note if the dataset is not finished."""
    try:
        manifest = Manifest.read(root)
    except Unfinished as error:
        return [note(error)]
    sizes = ", ".join(f"{name} {manifest.bytes(name) / 1e9:.3f} GB" for name in manifest.files)
    parts = [
        heading("Size on disk"),
        paragraph(f"{sizes}. Fingerprint: {manifest.fingerprint()}."),
    ]
    if manifest.latents is None:
        return parts
    count, lost = manifest.latents["count"], manifest.latents["not_finite"]
    statistics = zip(manifest.latents["mean"], manifest.latents["std"], strict=True)
    rows = [(i, f"{mean:.4f}", f"{std:.4f}") for i, (mean, std) in enumerate(statistics)]
    parts += [heading("Latents")]
    parts += [paragraph(f"{count:,} latents, {lost:,} left out because they were not finite.")]
    return [*parts, table(("channel", "mean", "standard deviation"), rows)]
