"""docs/plan.md: its targets exist and its table is whole."""

from __future__ import annotations

import re
from pathlib import Path

from pinxit.plan.targets import get_target

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan.md").read_text()


def test_the_targets_of_the_page_exist():
    for name in re.findall(r"`((?:tpu-v\d|v\de|v100|a100|[hd]\d00|\dxh100)[\w-]*)`", PAGE):
        get_target(name)


def test_the_memory_table_is_there():
    from_, _, rest = PAGE.partition("<!-- memory table -->")
    table = rest.partition("<!-- end of the memory table -->")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert from_ and len(rows) == 6
    assert {row[0].strip() for row in rows} == {"tpu-v3-8", "a100-40", "v100-16"}
    for row in rows:
        batch = row[4].strip().strip("*")
        claimed = int(row[2].strip().split("-")[0])
        assert row[3].strip() == "full" and int(batch) >= claimed
