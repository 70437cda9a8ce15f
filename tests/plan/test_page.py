"""docs/plan.md: its targets exist and its table is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pinxit.plan.step_time import PUBLISHED
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


def test_the_expected_results_are_planned_with_the_rates_of_the_table():
    row = next(line for line in PAGE.splitlines() if line.startswith("| tpu-v3-8 | `coyo_256` |"))
    prepared, streamed = map(int, row.split("|")[-3:-1])
    expected = (ROOT / "docs" / "expected_results.md").read_text()
    says = f"the planner says {prepared} images per second instead of {streamed}, so a quarter less"
    assert says in expected
    assert 1 - streamed / prepared == pytest.approx(0.25, abs=0.05)
    ratios = [ratio for pair in PUBLISHED.values() for ratio in pair]
    least, most = min(ratios), max(ratios)
    middle = (least * most) ** 0.5
    rows = expected.split("planned -->")[1].splitlines()[3:-2]
    assert len(rows) == 4
    for steps, _, *hours in (line.strip("| ").split(" | ") for line in rows):
        planned = int(steps.replace(",", "")) * 256 / streamed / 3600
        ends = planned * least / middle, planned * most / middle
        assert list(map(float, hours)) == pytest.approx([planned, *ends], rel=0.01, abs=0.05)
