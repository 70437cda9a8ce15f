"""A row of features depends on its picture alone: not on the batch, nor on the other pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.judge_features import JudgeAnswers, JudgeFeatures
from pinxit.evaluate.judge import load_judge

EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "judge_answers": lambda: JudgeAnswers(load_judge()),
    "scenes_judge": lambda: JudgeFeatures(load_judge()),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_rows_are_equal_in_any_batch(name: str):
    extractor = EXTRACTORS[name]()
    assert extractor.name == name
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(35)]
    pictures[1] = random.integers(0, 256, (48, 80, 3), np.uint8)
    prompts = [f"prompt {i}" for i in range(35)]
    rows = extractor(pictures, prompts)
    assert rows.shape == (35, extractor.width) and rows.dtype == np.float32
    np.testing.assert_array_equal(extractor(pictures[:1], prompts[:1]), rows[:1])
    np.testing.assert_array_equal(extractor(pictures[1:5], prompts[1:5]), rows[1:5])
    np.testing.assert_array_equal(extractor(pictures[::-1], prompts[::-1]), rows[::-1])
