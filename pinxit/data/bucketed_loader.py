"""Serves rows of several shapes in batches of one shape each (aspect-ratio buckets).

A bucket is a run of rows of one shape. Each bucket has its own order: a new permutation of its rows
for every epoch, one after the other. Its batch ``k`` holds the samples from ``k * batch_size`` on
in that order. Rows that do not fill a batch at the end of an epoch open the first batch of the next
epoch, so that no row is dropped or repeated.

The step determines the bucket. In epoch ``e`` a bucket of ``n`` rows contributes its batches from
``floor(e n / batch_size)`` to ``floor((e + 1) n / batch_size) - 1``, which is every batch that it
has enough rows for. The batches of all buckets are shuffled together. After each epoch, fewer than
`batch_size` rows of each bucket carry over to the next; the number does not grow. The schedule is
arithmetic on (seed, step): it has no state and no table that grows with the dataset.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.data.loader import Loader, Rows
from pinxit.data.prepared.row_layout import Bucket


class Schedule:
    """Assigns to each step a bucket and one of its batches."""

    def __init__(self, counts: Sequence[int], *, batch_size: int, seed: int) -> None:
        """Plans the batches of buckets with these `counts` of rows. At least one row is needed."""
        self.counts = tuple(counts)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch: tuple[int, grain.MapDataset | None] = (-1, None)

    def before(self, epoch: int) -> list[int]:
        """Returns how many batches each bucket has contributed before an epoch begins."""
        return [epoch * count // self.batch_size for count in self.counts]

    def epoch(self, step: int) -> int:
        """Returns the epoch of a step. An epoch with too few rows for one batch has no steps."""
        rows, buckets = sum(self.counts), len(self.counts)
        low = step * self.batch_size // rows
        high = (step + buckets) * self.batch_size // rows + 1
        epochs = range(low, high + 1)
        return low + bisect.bisect_right(epochs, step, key=lambda e: sum(self.before(e))) - 1

    def turn(self, step: int) -> tuple[int, int]:
        """Returns the bucket of a step, and the number of the batch within the bucket."""
        epoch = self.epoch(step)
        starts, stops = self.before(epoch), self.before(epoch + 1)
        ends = list(itertools.accumulate(b - a for a, b in zip(starts, stops, strict=True)))
        slot = self._shuffled(epoch, ends[-1])[step - sum(starts)]
        assert slot is not None  # Grain returns None only for filtered items
        bucket = bisect.bisect_right(ends, slot)
        return bucket, stops[bucket] - ends[bucket] + slot

    def _shuffled(self, epoch: int, count: int) -> grain.MapDataset:
        """Returns the shuffled order of an epoch's batches, numbered across all buckets."""
        cached, order = self._epoch
        if order is None or cached != epoch:
            order = grain.MapDataset.range(count).shuffle(seed=derived(self.seed, 0, epoch))
            self._epoch = epoch, order
        return order


class BucketedLoader(Loader):
    """Serves shuffled batches of `rows` by step. Each batch comes from one of `buckets`."""

    def __init__(
        self,
        rows: Rows,
        *,
        buckets: Sequence[Bucket],
        batch_size: int,
        seed: int = 0,
        part: Int[np.ndarray, " p"] | None = None,
    ) -> None:
        """Takes the same `part` as `Loader`. Refuses a dataset whose buckets are all empty."""
        super().__init__(rows, batch_size=batch_size, seed=seed, part=part)
        self.buckets = tuple(bucket for bucket in buckets if len(bucket))
        if not self.buckets:
            raise UsageError("buckets: all of them are empty")
        counts = [len(bucket) for bucket in self.buckets]
        self.schedule = Schedule(counts, batch_size=batch_size, seed=seed)
        self._orders = [
            grain.MapDataset.range(count).seed(derived(seed, 1, number)).shuffle().repeat()
            for number, count in enumerate(counts)
        ]

    def row_numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Returns the row numbers of this reader's part of batch `step`."""
        bucket, batch = self.schedule.turn(step)
        order, first = self._orders[bucket], batch * self.batch_size
        offsets = [order[first + int(i)] for i in self.part]
        return np.asarray(offsets, np.int64) + self.buckets[bucket].start


def derived(*numbers: int) -> int:
    """Returns a 32-bit seed derived from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
