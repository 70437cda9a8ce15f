"""Draws the pictures of a preparation's report: images kept and rejected, and score histograms.

The browser shows the captions in the report, since it has the fonts. In the PNG files beside the
report they are drawn.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pinxit.data.images.decode import decode_jpeg
from pinxit.data.outcome import meaning
from pinxit.data.prepared.shards import DamagedShard, ShardReader, unpack
from pinxit.drawn_text import draw_text, wrapped
from pinxit.prepare.rejected_previews import SIDE, read_previews, thumbnail
from pinxit.prepare.report_figures import ScoreFigures

KEPT = 60
"""The maximum number of kept images to show."""
EACH = 8
"""The maximum number of rejected images to show for each reason."""
COLUMNS = 10
LINE = 12
TEXT = 2 * LINE + 2
"""Height of the text below a thumbnail, in pixels."""
GAP, BETWEEN = 20, 10
"""Distance from the text of a row to the next row, and between columns, in pixels."""
TITLE = 30
"""Height of a group's title, in pixels."""
Group = tuple[str, list[tuple[bytes, str]]]
"""A title, and the JPEG images below it with their captions."""


def kept_images(root: Path, names: Sequence[str]) -> list[Group]:
    """Returns kept images with their captions, sampled evenly from the shards of these names.

    Only shards that can be read are used, since images may be deleted once their latents exist.
    """
    present = set(os.listdir(root / "images")) if names and (root / "images").is_dir() else set()
    shards = [root / "images" / name for name in names if name in present]
    chosen = _spread(len(shards), min(len(shards), KEPT // 4))
    cells: list[tuple[bytes, str]] = []
    for number in chosen:
        with contextlib.suppress(DamagedShard, OSError), ShardReader(shards[number]) as reader:
            rows = _spread(len(reader), min(len(reader), -(-KEPT // len(chosen))))
            for record in reader.read(rows):
                arrays, meta = unpack(record)
                cells.append((arrays["jpeg"].tobytes(), meta["caption"]))
    return [("", cells[:KEPT])] if cells else []


def rejected_images(root: Path) -> list[Group]:
    """Returns images that the filters rejected, grouped by reason."""
    groups: dict[str, list[tuple[bytes, str]]] = {}
    for reason, caption, jpeg in read_previews(root):
        cells = groups.setdefault(reason, [])
        if len(cells) < EACH:
            cells.append((jpeg, caption))
    return [(f"{name}: {meaning(name)}", cells) for name, cells in sorted(groups.items())]


def score_histograms(figures: Sequence[ScoreFigures]) -> bytes | None:
    """Draws a histogram of each score, with the filters' limits, as a PNG; None without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not figures:
        return None
    figure = Figure(figsize=(13, 2.9 * -(-len(figures) // 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(-(-len(figures) // 4), 4, squeeze=False).ravel()
    for one, plot in zip(figures, axes, strict=False):
        plot.stairs(one.counts, one.edges, fill=True, color="#7aa6d8")
        if one.limit is not None:
            plot.axvline(one.limit, color="#c0392b", label=f"limit {one.limit:g}")
            plot.legend(fontsize=8)
        missing = f", missing in {one.missing:,}" if one.missing else ""
        plot.set(title=f"{one.title}{missing}", ylabel="rows")
        plot.title.set_fontsize(9)
        plot.tick_params(labelsize=8)
    for plot in axes[len(figures) :]:
        plot.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    return buffer.getvalue()


def _spread(count: int, amount: int) -> list[int]:
    """Returns `amount` evenly spaced integers below `count`."""
    return [number * count // amount for number in range(amount)]


def sheet(groups: Sequence[Group]) -> Image.Image:
    """Draws groups of thumbnails with captions, each group below its title.

    A caption is directly below its own picture, and far from the next row.
    """
    title = TITLE if any(name for name, _ in groups) else 0
    rows = [(name, _rows(cells)) for name, cells in groups]
    height = sum(title + sum(map(_height, lines)) for _, lines in rows)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + BETWEEN), height), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for name, lines in rows:
        if title:
            draw.line((0, top + 1, sheet.width, top + 1), fill="#bbbbbb")
            draw_text(draw, (2, top + 7), name, size=14, fill="black")
        top += title
        for line in lines:
            for column, (small, caption) in enumerate(line):
                left = column * (SIDE + BETWEEN)
                sheet.paste(small, (left, top))
                _draw_caption(draw, (left, top + small.height + 1), caption)
            top += _height(line)
    return sheet


def _rows(cells: Sequence[tuple[bytes, str]]) -> list[list[tuple[Image.Image, str]]]:
    """Returns the thumbnails with their captions, in rows of `COLUMNS`."""
    small = [(Image.fromarray(thumbnail(decode_jpeg(jpeg))), caption) for jpeg, caption in cells]
    return [small[start : start + COLUMNS] for start in range(0, len(small), COLUMNS)]


def _height(row: Sequence[tuple[Image.Image, str]]) -> int:
    """Returns the height of a row: its highest thumbnail, the text, and the gap below."""
    return max(small.height for small, _ in row) + TEXT + GAP


def _draw_caption(draw: ImageDraw.ImageDraw, at: tuple[int, int], caption: str) -> None:
    for number, line in enumerate(wrapped(caption[:200], width=SIDE, size=9, lines=2)):
        draw_text(draw, (at[0], at[1] + number * LINE), line, size=9, fill="#444444")
