"""GenEval's prompts are the published ones, and a part of them is balanced."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from pinxit.config import UsageError
from pinxit.evaluate.geneval import prompts as module
from pinxit.evaluate.geneval.prompts import TASKS, balanced, geneval_prompts

PUBLISHED = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
"""`sha256sum prompts/evaluation_metadata.jsonl` in djghosh13/geneval at af4902f."""
CANONICAL = "010f2e9a62a68a9069150764f9736bb5063b869f799ba1a6239e35e561f75aa0"
"""The same rows as one list of JSON with sorted keys and without blanks."""
COUNTS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}


def test_they_are_the_published_ones_to_the_byte():
    rows = [prompt.published() for prompt in geneval_prompts()]
    assert Counter(row["tag"] for row in rows) == COUNTS and tuple(COUNTS) == TASKS
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED
    canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == CANONICAL
    assert len({row["prompt"] for row in rows}) == 553


def test_other_random_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_SEED", 44)
    with pytest.raises(UsageError, match="draws other random numbers from the seed 44"):
        geneval_prompts.__wrapped__()


@pytest.mark.parametrize(
    ("limit", "fewest", "most"), [(6, 1, 1), (8, 1, 2), (60, 10, 10), (490, 80, 83), (552, 80, 100)]
)
def test_a_part_has_the_same_number_of_each_task(limit: int, fewest: int, most: int):
    part = balanced(limit)
    counts = Counter(prompt.task for prompt in part)
    assert len(part) == limit and min(counts.values()) == fewest and max(counts.values()) == most
    order = [geneval_prompts().index(prompt) for prompt in part]
    assert order == sorted(order) and set(counts) == set(TASKS)


def test_no_limit_and_a_large_one_are_all():
    assert balanced(None) == balanced(553) == balanced(9999) == geneval_prompts()
    for limit in (0, 5, -1):
        with pytest.raises(UsageError, match=r"geneval_prompts: .* too small; valid: at least 6"):
            balanced(limit)


def test_the_generator_is_left_alone():
    before = np.random.get_state()[1].tolist()
    geneval_prompts.__wrapped__()
    assert np.random.get_state()[1].tolist() == before
