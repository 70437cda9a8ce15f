"""Batches on their way: placed as they are, and the captions of the first ones looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from pinxit.train.input.caption_check import CaptionCheck, Intake


def batch(first: int) -> dict[str, np.ndarray]:
    return {"token_ids": np.full((32, 4), first, np.int32), "index": np.arange(32, dtype=np.int32)}


def test_batches_are_placed_and_equal_captions_told_once():
    said: list[str] = []
    placed: list[int] = []

    def place(raw: dict) -> dict:
        placed.append(int(raw["token_ids"][0, 0]))
        return {"there": raw["index"]}

    intake = Intake(place, said.append)
    for _ in range(4):
        assert list(intake(batch(7))) == ["there"]
    assert placed == [7] * 4
    assert len(said) == 1 and said[0].startswith("warning: the first 64 captions are all the same")


def test_good_captions_say_nothing():
    said: list[str] = []
    intake = Intake(dict, said.append)
    for first in range(6):
        intake(batch(first))
    assert said == []


def ids(*numbers: int, count: int = 16) -> dict[str, Any]:
    return {"token_ids": np.tile(np.asarray(numbers, np.int32), (count, 1))}


def test_captions_that_are_all_the_same():
    check = CaptionCheck()
    assert [check.look(ids(1, 2, 3)) for _ in range(3)] == [None] * 3
    assert "first 64 captions are all the same" in (check.look(ids(1, 2, 3)) or "")
    assert check.look(ids(1, 2, 3)) is None, "once"
    mixed = CaptionCheck()
    assert mixed.look(ids(1, 2, 3)) is None and mixed.look(ids(1, 2, 4)) is None and mixed.done


def test_masks_that_are_false_everywhere():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(64, 4, 8)).astype(np.float16)
    columns = {"text_tokens": tokens, "text_mask": np.zeros((64, 4), bool)}
    assert "mask is false everywhere" in (CaptionCheck().look(columns) or "")
    assert CaptionCheck().look(columns | {"text_mask": np.ones((64, 4), bool)}) is None
