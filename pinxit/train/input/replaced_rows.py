"""Counts the replaced rows of damaged shards by step, over all processes.

Batches are read ahead of their steps, so a count of the rows read is ahead of the run. Here the
count belongs to the step, and is the same whenever a run is interrupted. Each process publishes its
own counts before it takes the step, so they are complete when the step has been taken.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import jax

from pinxit.devices.processes import publish, published, several

KEPT = 64
"""Number of recent counts to keep: more than the steps that one process is ahead of another."""


class ReplacedRows:
    """The number of replaced rows before each step, and the unusable shards with their reasons."""

    def __init__(self, before: int = 0) -> None:
        """Takes the number of rows that were replaced before this process."""
        self._before = before
        self._counts: deque[tuple[int, int]] = deque([(0, 0)], maxlen=KEPT)
        self._shards: dict[str, str] = {}

    def note(self, step: int, replaced: int, shards: Mapping[str, str]) -> None:
        """Records the total of replaced rows of this process, and its unusable shards, once the
        batch of a step has been read."""
        if replaced == self._counts[-1][1] and len(shards) == len(self._shards):
            return
        self._counts.append((step, replaced))
        self._shards = dict(shards)
        if several():
            own = {"counts": list(self._counts), "shards": self._shards}
            publish(_key(jax.process_index()), json.dumps(own))

    def count(self, steps: int) -> int:
        """Returns how many rows of the first `steps` batches were replaced."""
        return self._before + sum(
            max((total for step, total in one["counts"] if step < steps), default=0)
            for one in self._of_all()
        )

    def shards(self) -> dict[str, str]:
        """Maps each shard that a process cannot use to the reason."""
        reasons: dict[str, str] = {}
        for one in self._of_all():
            reasons = one["shards"] | reasons
        return dict(sorted(reasons.items()))

    def _of_all(self) -> list[dict[str, Any]]:
        """Returns the counts and shards of all processes, this one first."""
        records = [{"counts": list(self._counts), "shards": self._shards}]
        if several():
            others = (n for n in range(jax.process_count()) if n != jax.process_index())
            texts = [published(_key(number)) for number in others]
            records += [json.loads(text) for text in texts if text is not None]
        return records


def _key(process: int) -> str:
    return f"pinxit/replaced_rows/{process}"
