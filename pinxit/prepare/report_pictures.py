"""Draws the pictures of a preparation's report: images kept and rejected, and score histograms.

Each function returns the picture, or None if there is nothing to show.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pinxit.data.filters.histograms import BINS, Histograms
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import decode_jpeg
from pinxit.data.outcome import meaning
from pinxit.data.prepared.shards import DamagedShard, ShardReader, unpack
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.rejected_previews import SIDE, read_previews, thumbnail

KEPT = 60
"""The maximum number of kept images to show."""
EACH = 8
"""The maximum number of rejected images to show for each reason."""
COLUMNS = 10
TEXT = 34
"""Height of the text below a thumbnail, in pixels."""
TITLES = {
    "watermark": "watermark (probability)",
    "nsfw": "NSFW (probability)",
    "aesthetic": "aesthetic score",
    "clip_similarity": "CLIP similarity",
    "side": "shorter side (pixels)",
    "aspect": "aspect ratio",
    "words": "words",
    "characters": "characters",
}


def kept_images(root: Path, records: Sequence[UnitRecord]) -> Image.Image | None:
    """Draws kept images with their captions, sampled evenly from the dataset.

    Only shards that can be read are used, since images may be deleted once their latents exist.
    """
    named = [record.files["images"].name for record in records if "images" in record.files]
    shards = [path for path in (root / "images" / name for name in named) if path.is_file()]
    chosen = _spread(len(shards), min(len(shards), KEPT // 4))
    cells: list[tuple[bytes, str]] = []
    for number in chosen:
        with contextlib.suppress(DamagedShard, OSError), ShardReader(shards[number]) as reader:
            rows = _spread(len(reader), min(len(reader), -(-KEPT // len(chosen))))
            for record in reader.read(rows):
                arrays, meta = unpack(record)
                cells.append((arrays["jpeg"].tobytes(), meta["caption"]))
    return _sheet([("", cells[:KEPT])]) if cells else None


def rejected_images(root: Path) -> Image.Image | None:
    """Draws images that the filters rejected, grouped by reason."""
    groups: dict[str, list[tuple[bytes, str]]] = {}
    for reason, caption, jpeg in read_previews(root):
        cells = groups.setdefault(reason, [])
        if len(cells) < EACH:
            cells.append((jpeg, caption))
    if not groups:
        return None
    return _sheet([(f"{name}: {meaning(name)}", cells) for name, cells in sorted(groups.items())])


def score_histograms(histograms: Histograms, filters: FilterConfig) -> bytes | None:
    """Draws a histogram of each score that rows have, with the filters' limits, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [name for name in BINS if histograms.by_name[name].counts.any()]
    if not known:
        return None
    figure = Figure(figsize=(13, 2.9 * -(-len(known) // 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(-(-len(known) // 4), 4, squeeze=False).ravel()
    limits: Mapping[str, float] = filters.thresholds()
    for name, plot in zip(known, axes, strict=False):
        histogram = histograms.by_name[name]
        plot.stairs(histogram.counts, histogram.edges, fill=True, color="#7aa6d8")
        if name in limits:
            plot.axvline(limits[name], color="#c0392b", label=f"limit {limits[name]:g}")
            plot.legend(fontsize=8)
        missing = f", missing in {histogram.missing:,}" if histogram.missing else ""
        plot.set(title=f"{TITLES[name]}{missing}", ylabel="rows")
        plot.title.set_fontsize(9)
        plot.tick_params(labelsize=8)
    for plot in axes[len(known) :]:
        plot.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    return buffer.getvalue()


def merged_histograms(records: Iterable[UnitRecord]) -> Histograms:
    """Merges the score histograms of all units."""
    return Histograms.total(
        Histograms.from_json(record.measured["histograms"])
        for record in records
        if "histograms" in record.measured
    )


def all_records(root: Path) -> list[UnitRecord]:
    """Reads all commit records of the first stage, sorted by unit."""
    ledger = Ledger(root, "images")
    paths = sorted(ledger.record_path("x").parent.glob("*.json"))
    records = (ledger.read(path.stem) for path in paths)
    return [record for record in records if record is not None]


def _spread(count: int, amount: int) -> list[int]:
    """Returns `amount` evenly spaced integers below `count`."""
    return [number * count // amount for number in range(amount)]


def _sheet(groups: Sequence[tuple[str, Sequence[tuple[bytes, str]]]]) -> Image.Image:
    """Draws groups of thumbnails with captions, each group below its title."""
    title = 22 if any(name for name, _ in groups) else 0
    lines = [-(-len(cells) // COLUMNS) for _, cells in groups]
    height = sum(title + n * (SIDE + TEXT) for n in lines)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 6), height), "white")
    draw, small, large, top = ImageDraw.Draw(sheet), _font(9), _font(13), 0
    for (name, cells), count in zip(groups, lines, strict=True):
        draw.text((2, top + 3), name, fill="black", font=large)
        top += title
        for index, (jpeg, caption) in enumerate(cells):
            left = index % COLUMNS * (SIDE + 6)
            upper = top + index // COLUMNS * (SIDE + TEXT)
            sheet.paste(Image.fromarray(thumbnail(decode_jpeg(jpeg))), (left, upper))
            text = "\n".join(textwrap.wrap(caption[:200], 24)[:2])
            draw.multiline_text((left, upper + SIDE + 2), text, fill="#444444", font=small)
        top += count * (SIDE + TEXT)
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Loads DejaVu Sans, which covers many scripts and comes with matplotlib."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
