"""Batches on their way: placed as they are, and the captions of the first ones looked at."""

from __future__ import annotations

import numpy as np

from pinxit.train.input.caption_check import Intake


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
