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
from pinxit.data.outcome import outcome_figures
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
from pinxit.prepare.image_totals import ImageTotals, image_totals
from pinxit.prepare.last_command import write_last_command
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.rejected_previews import thumbnail
from pinxit.prepare.report_figures import (
    latent_figures,
    score_figures,
    size_figures,
    summary_line,
)
from pinxit.prepare.report_pictures import (
    Group,
    kept_images,
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
    root: Path,
    *,
    command: Sequence[str] = (),
    failed: Sequence[UnitResult] = (),
    totals: ImageTotals | None = None,
    manifest: Manifest | None = None,
) -> Path:
    """Writes ``report.html`` and its pictures for the units done so far, and returns its path.

    `command` is the command line, and `failed` are the units that failed in it. `totals` are the
    sums over all units, and `manifest` is that of the dataset, if they were read before.
    """
    ledger = Ledger(root, "images")
    totals = totals or image_totals(ledger.each())
    counts = totals.counts
    identity, notes = ledger.identity() or {}, ledger.notes()
    line = summary_line(counts, identity, units=totals.units, seconds=totals.seconds)
    parts = [paragraph(line), *(note(remark) for remark in network_remarks(notes))]
    if line := enlarged_line(totals):
        parts.append(note(line))
    parts += [note(f"Not read: {line}") for line in notes.get("not_read", ())]
    reasons = [(str(getattr(one.unit, "id", one.unit)), one.reason) for one in failed]
    if command:
        parts += [heading("Command"), command_line(command)]
        write_last_command(root, command, reasons)
    skipped = list(ledger.skipped().items())
    for label, units in (("Units that failed", reasons), ("Units left out", skipped)):
        if units:
            parts += [heading(label), *_reasons(units)]
    parts += [heading("Outcomes of all rows"), _outcomes(counts)]
    scores = score_histograms(score_figures(totals.histograms, stored_filters(identity)))
    if scores is not None:
        label = "Scores of all rows, with the filters' limits"
        _write_picture(root, "scores.png", scores)
        parts += [heading(label), picture(scores, label)]
    for label, name, groups in (
        ("Images kept", "kept.png", kept_images(root, _in_order(totals))),
        ("Images rejected", "rejected.png", rejected_images(root)),
    ):
        if groups:
            _write_picture(root, name, _png(sheet(groups)))
            parts += [heading(label), *_galleries(groups)]
    parts += [*_manifest(root, manifest), heading("Settings")]
    parts += [
        folded_json("settings that determine the content", identity),
        folded_json("other settings", notes),
    ]
    path = root / REPORT
    with whole(path) as temporary:
        temporary.write_text(page(root.name, parts, style=STYLE), encoding="utf-8")
    return path


def enlarged_line(totals: ImageTotals) -> str:
    """Returns one line about kept images that were enlarged, with the first one, or ""."""
    count, first = totals.enlarged, totals.enlarged_example
    if not count:
        return ""
    images = "1 of the images kept was" if count == 1 else f"{count:,} of the images kept were"
    return f"{images} enlarged to the image size (the first: {first}; --filters.min_side limits it)"


def _in_order(totals: ImageTotals) -> list[str]:
    """Returns the names of the shards with images, in the order of their units."""
    return [totals.shards[unit] for unit in sorted(totals.shards)]


def network_remarks(notes: Mapping[str, Any]) -> list[str]:
    """Returns a remark if private networks were allowed, and one if opt-outs were ignored."""
    fetch = notes.get("fetch", {})
    remarks = []
    if fetch.get("allow_networks"):
        networks = ", ".join(fetch["allow_networks"])
        remarks.append(f"Networks that are not public were allowed on request: {networks}.")
    if fetch.get("honour_opt_out") is False:
        remarks.append("Opt-outs (X-Robots-Tag) were not respected.")
    return remarks


def _reasons(units: Sequence[tuple[object, str]]) -> list[Html]:
    """Returns a table of the first fifty units with their reasons."""
    rest = len(units) - 50
    more = [paragraph(f"and {rest} more")] if rest > 0 else []
    return [table(("unit", "reason"), units[:50]), *more]


def _outcomes(counts: Counter[str]) -> Html:
    """Returns a table of the rows by status, the most frequent status first."""
    rows = []
    for one in outcome_figures(counts):
        bar = Html(f"<div class='bar' style='width:{max(1, round(300 * one.share))}px'></div>")
        rows.append((one.status, one.meaning, f"{one.rows:,}", f"{one.share:.2%}", bar))
    return table(("status", "meaning", "rows", "share", ""), rows)


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


def _manifest(root: Path, manifest: Manifest | None) -> list[Html]:
    """Returns the sizes and the latents' statistics, or a note if the dataset is not finished."""
    try:
        manifest = manifest or Manifest.read(root)
    except Unfinished as error:
        return [note(error)]
    sizes = ", ".join(
        f"{name} {size / 1e9:.3f} GB" for name, size in size_figures(manifest).items()
    )
    parts = [
        heading("Size on disk"),
        paragraph(f"{sizes}. Fingerprint: {manifest.fingerprint()}."),
    ]
    latents = latent_figures(manifest)
    if latents is None:
        return parts
    count, lost = latents["count"], latents["not_finite"]
    statistics = zip(latents["mean"], latents["std"], strict=True)
    rows = [(i, f"{mean:.4f}", f"{std:.4f}") for i, (mean, std) in enumerate(statistics)]
    parts += [heading("Latents")]
    parts += [paragraph(f"{count:,} latents, {lost:,} left out because they were not finite.")]
    return [*parts, table(("channel", "mean", "standard deviation"), rows)]
