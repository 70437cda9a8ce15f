"""docs/coyo.md: its table follows from its assumptions, and its limits are the defaults."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pinxit.data.filters.resolve import resolved_filters
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.prepare.find_duplicates import HASH, MARK, PARTITION_ROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coyo.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The cells below the line of the table that begins so."""
    lines = PAGE[PAGE.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(text: str) -> float:
    return float(re.match(r"[\d,.]+", text).group().replace(",", ""))  # type: ignore[union-attr]


def size(count: float) -> str:
    return f"{count / 1e12:.2f} TB" if count >= 1e12 else f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.1f} d"
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.0f} min"


def test_the_plan_follows_from_the_assumptions():
    values = [number(row[1]) for row in table("| assumption |")]
    passed, alive, body, jpeg, latent, t5, line_of, rate, line, encoded = values
    for row in table("| rows of COYO |"):
        count = number(row[0]) * 1e6
        tried = count * passed / 100
        kept = round(tried * alive / 100)
        fetching = max(tried / rate, kept * body * 8e3 / (line * 1e9))
        expected = [f"{tried / 1e6:.2f} M", f"{kept / 1e6:.2f} M", size(count * line_of)]
        expected += [size(kept * each * 1e3) for each in (body, jpeg, latent, t5)]
        assert row[1:] == [*expected, duration(fetching), duration(kept / encoded)]
    text = PAGE.replace("\n", " ")
    images = number(text.partition("Streamed training at ")[2])
    assert f"about {images / (alive / 100):.0f} attempts a second" in text
    assert f"{images * body * 8e3 / 1e9:.2f} Gbit/s" in text


def test_the_plan_of_the_duplicates_follows_from_its_figures():
    rows = {row[0]: row[1:] for row in table("| | 1 M rows |")}
    passed = number(table("| assumption |")[0][1]) / 100
    rate = number(rows["reading, on 16 cores"][3]) * 16
    for column, count in enumerate((1e6, 100e6, 747e6)):
        work = count * passed * (MARK.itemsize + HASH.itemsize)
        sizes = {"disk while it works": work, "the list": count / 4}
        for name, value in sizes.items():
            said = f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
            assert rows[name][column] == said
        seconds = count / rate
        said = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
        assert rows["reading, on 16 cores"][column] == said
    partitions = 2 ** max(0, math.ceil(math.log2(747e6 / PARTITION_ROWS)))
    assert f"of which COYO has {partitions}" in PAGE


def test_the_filters_are_the_defaults():
    filters = resolved_filters(FilterConfig(), web=True, targets=[(256, 256)])
    assert f"at least as long as the image size ({filters.min_side})" in PAGE.replace("\n   ", " ")
    assert f"at least {filters.min_aesthetic}" in PAGE
    for value in (filters.max_watermark, filters.max_nsfw, filters.min_clip_similarity):
        assert f" {value:.2f}".rstrip("0").replace("0.", ".") in PAGE
