"""docs/plan.md: its commands are understood, its targets exist, its table is whole."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from pinxit.cli.plan import PlanOptions
from pinxit.config import leaves
from pinxit.plan.targets import get_target
from pinxit.recipes import RECIPES
from pinxit.train.settings import TrainConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan.md").read_text()


def test_the_commands_have_options_that_exist():
    known = {field.name for field in fields(PlanOptions)} | set(leaves(TrainConfig))
    known |= {"recipe", "install-compiler", "clock_ghz"}
    lines = [
        shlex.split(line, comments=True)
        for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
        if line.strip()
    ]
    assert len(lines) >= 5
    for words in lines:
        options = [word[2:] for word in words if word.startswith("--")]
        assert set(options) <= known, words
        for option, value in pairwise(words):
            if option == "--target" and value != "here":
                get_target(value)
            assert option != "--recipe" or value in RECIPES


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
