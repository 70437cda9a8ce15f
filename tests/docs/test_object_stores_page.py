"""docs/object_stores.md: its table follows from its assumptions, and its figures are right."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pinxit.cli.pack import GIGABYTE, PackOptions
from pinxit.data.prepared import background_hashes, packed_records, unit_readers
from pinxit.open_files import MOST
from pinxit.prepare.options import PrepareOptions
from pinxit.prepare.packing.pack_plan import INDEX_BYTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "object_stores.md").read_text()
TEXT = PAGE.replace("\n", " ")
COYO = (ROOT / "docs" / "coyo.md").read_text()


def table(heading: str, page: str = PAGE) -> list[list[str]]:
    """The cells below the last table that begins so."""
    lines = page[page.rindex(heading) :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(text: str) -> float:
    match = re.match(r"[\d,.]+", text)
    assert match, text
    return float(match[0].replace(",", ""))


def size(count: float) -> str:
    return f"{count / 1e12:.2f} TB" if count >= 1e12 else f"{count / 1e9:.1f} GB"


def test_the_table_follows_from_the_assumptions():
    values = [number(row[1]) for row in table("| assumption |")]
    unit, record, opening, pack, entry, most = values
    passed, alive = (number(row[1]) / 100 for row in table("| assumption |", COYO)[:2])
    kept_of = {row[0]: row[2] for row in table("| rows of COYO |", COYO)}
    for row in table("| rows of COYO |"):
        count = number(row[0]) * 1e6
        kept = round(count * passed * alive)
        shards = round(count / unit)
        packed = kept * (record * 1e3 + entry)
        expected = [f"{kept / 1e6:.2f} M", f"{shards:,}"]
        expected += [f"{math.ceil(kept * record * 1e3 / (pack * 1e9)):,}"]
        expected += [f"{kept * entry / 1e6:.1f} MB"]
        for limit in (128, most):
            opens = shards if limit >= shards else kept * (1 - limit / shards)
            expected.append(size(opens * opening * 1e6 + kept * record * 1e3))
        assert row[1:] == [*expected, size(packed)]
        assert row[1] == kept_of[row[0]]


def test_the_figures_are_those_of_the_package():
    unit, _, _, pack, entry, most = (number(row[1]) for row in table("| assumption |"))
    assert (unit, pack, entry) == (
        PrepareOptions.unit_rows, PackOptions.pack_gigabytes, INDEX_BYTES
    )  # fmt: skip
    assert most == MOST - unit_readers.RESERVED_FILES
    assert f"the last {PackOptions.held_out_images:,} rows" in TEXT
    assert f"no more than {background_hashes.RATE / 1e6:.0f} MB a second" in TEXT
    assert f"up to {unit_readers.HASH_FIRST / GIGABYTE:.0f} GB are hashed as they" in TEXT
    assert f"more than {packed_records.TOLERANCE:.0%} of the".replace("%", " %") in TEXT
