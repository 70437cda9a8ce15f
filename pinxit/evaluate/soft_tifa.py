"""Soft-TIFA's two means, with which GenEval 2 scores answers (Kamath et al. 2025, 2512.16853).

Only the formulas are here: the prompts of GenEval 2 have a licence that forbids commercial use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pinxit.config import UsageError


def soft_tifa(probabilities: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns the arithmetic and the geometric mean over a prompt's questions, each averaged over
    the prompts.

    ``probabilities[i]`` are, for the picture of prompt i, the probabilities that a model gives to
    the correct answer of each question, from 0 to 1. Raises `UsageError` for other numbers, and for
    a prompt without questions.
    """
    if not probabilities:
        raise UsageError("probabilities", list(probabilities), problem="empty")
    arithmetic: list[float] = []
    geometric: list[float] = []
    for number, each in enumerate(probabilities):
        if not each or not all(0 <= probability <= 1 for probability in each):
            problem = f"not the probabilities of questions (prompt {number})"
            raise UsageError("probabilities", list(each), problem=problem, valid="from 0 to 1")
        arithmetic.append(math.fsum(each) / len(each))
        logarithms = [math.log(probability) if probability else -math.inf for probability in each]
        geometric.append(math.exp(sum(logarithms) / len(each)))
    count = len(probabilities)
    return math.fsum(arithmetic) / count, math.fsum(geometric) / count
